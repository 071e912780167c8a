//! Junos: its command line and NETCONF, against a scripted device that netmiko and ncclient accept too. Changes are on trial until a login has
//! proven them.

use std::process::Command;

use volvelle_testkit::switch::{INITIAL_PASSWORD, Memory, Switch, python};

use super::conformance::passes;
use super::devices::Device;
use super::*;

async fn device(netconf: Option<&str>, acting: ActingAs) -> Device {
    let switch = Switch::start_with("juniper-junos", netconf.unwrap_or("1.1")).expect("starts");
    let mut device = Device::on(switch, "juniper-junos", "admin", acting).await;
    if netconf.is_some() {
        device.case.target.plain.insert("device-transport".into(), json!("netconf"));
        device.connector.check_target(&device.case.target).expect("fine");
    }
    device
}

/// The command line, and both versions of NETCONF.
const WAYS: [Option<&str>; 3] = [None, Some("1.1"), Some("1.0")];

const READ: [ProbeOutcome; 2] =
    [ProbeOutcome::Opens(Evidence::WitnessRead), ProbeOutcome::Refused(Evidence::WitnessRead)];

#[tokio::test(flavor = "multi_thread")]
async fn independent_clients_accept_the_scripted_device() {
    let script = r#"
import crypt, sys
from ncclient import manager
from ncclient.transport.errors import AuthenticationError
from netmiko import ConnectHandler
port, password = int(sys.argv[1]), sys.argv[2]
cli = ConnectHandler(device_type="juniper_junos", host="127.0.0.1", port=port, username="admin", password=password)
stored = crypt.crypt("By-Netmiko-1", "$6$abcdefgh$")
cli.send_config_set([f'set system login user app1 authentication encrypted-password "{stored}"'], exit_config_mode=False)
cli.commit(confirm=True, confirm_delay=2)
cli.commit()
cli.exit_config_mode()
assert stored in cli.send_command("show configuration system login user app1 | display set")
cli.disconnect()
open_as = lambda user, word, name="default": manager.connect(host="127.0.0.1", port=port, username=user, password=word,
    hostkey_verify=False, allow_agent=False, look_for_keys=False, device_params={"name": name})
stored = crypt.crypt("By-Ncclient-1", "$6$abcdefgh$")
config = ("<config><configuration><system><login><user><name>ops</name><authentication><encrypted-password>" + stored
    + "</encrypted-password></authentication></user></login></system></configuration></config>")
with open_as("app1", "By-Netmiko-1") as session:
    named = ":confirmed-commit:1.1" in " ".join(session.server_capabilities)
    persist = {"persist": "one"} if named else {}
    for keep in (False, True):
        with session.locked("candidate"):
            session.edit_config(target="candidate", config=config)
            session.commit(confirmed=True, timeout="120", **persist)
            assert stored in session.get_config("running").data_xml
            if keep:
                session.commit(**({"persist_id": "one"} if named else {}))
            elif named:
                session.cancel_commit(persist_id="one")
            else:
                with open_as("app1", "By-Netmiko-1", "junos") as other:
                    other.rollback(1)
                    other.commit()
        assert (stored in session.get_config("running").data_xml) == keep
open_as("ops", "By-Ncclient-1").close_session()
try:
    open_as("ops", password)
    sys.exit("a former password gets in")
except AuthenticationError:
    print("accepted")
"#;
    for version in ["1.0", "1.1"] {
        let switch = Switch::start_with("juniper-junos", version).expect("starts");
        let output = Command::new(python().expect("installs"))
            .args(["-W", "ignore", "-c", script, &switch.addr.port().to_string(), INITIAL_PASSWORD])
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("accepted"), "{version}: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_proven_by_a_login_and_confirmed_and_no_password_is_typed() {
    for way in WAYS {
        for acting in [ActingAs::Target, ActingAs::User] {
            let mut device = device(way, acting).await;
            let (candidate, outcome) = device.changed().await;
            assert_eq!(outcome, ApplyOutcome::Applied, "{way:?} {acting:?}");
            device.switch.age(60).expect("passes");
            assert!(device.opens_now(&candidate), "{way:?}: it was not confirmed");
            let report = device.connector.probe(&device.case.call(), &[&candidate, &device.case.current]).await;
            if acting == ActingAs::Target {
                assert_eq!(report.outcomes, READ, "{way:?}");
            } else {
                assert_eq!(report.outcomes[0], ProbeOutcome::Opens(Evidence::Login), "{way:?}");
            }
            assert_eq!(device.switch.failures().expect("counts"), 0);
            let (typed, password) =
                (device.switch.typed().expect("lines"), candidate.expose_text("password").expect("has one"));
            assert!(!typed.iter().any(|line| line.contains(password)), "{typed:?}");
            assert!(typed.iter().any(|line| line.contains("$6$") && !line.contains(password)), "{typed:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_nobody_gets_in_with_is_taken_back() {
    for way in WAYS {
        let mut device = device(way, ActingAs::Target).await;
        device.switch.hold_logins("app1").expect("holds");
        let (candidate, outcome) = device.changed().await;
        assert!(
            matches!(&outcome, ApplyOutcome::Rejected(f) if f.message.contains("taken back")),
            "{way:?} {outcome:?}"
        );
        device.switch.hold_logins("").expect("lets go");
        assert!(!device.opens_now(&candidate) && device.opens_now(&device.case.current.clone()), "{way:?}");
        assert_eq!(device.switch.failures().expect("counts"), 1, "the login that proved nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_junos_refuses_changes_nothing_and_is_told() {
    for way in WAYS {
        let mut device = device(way, ActingAs::Target).await;
        device.switch.fill(Memory::Full).expect("fills");
        let (candidate, outcome) = device.changed().await;
        assert!(matches!(&outcome, ApplyOutcome::Rejected(f) if f.message.contains("refuses")), "{way:?} {outcome:?}");
        assert!(!device.opens_now(&candidate));
        device.switch.fill(Memory::Free).expect("frees");
        assert_eq!(
            device.connector.apply(&device.case.call(), &candidate).await,
            ApplyOutcome::Applied,
            "no lock is left"
        );
        device.case.current = Credential::user_password("nobody", INITIAL_PASSWORD.into());
        let failure = device.connector.preflight(&device.case.call(), &PasswordPolicy::default()).await;
        assert_eq!(failure.expect_err("no such user").class, FailureClass::Config);
    }
    let mut switch = device(None, ActingAs::Target).await;
    switch.case.target.plain.insert("device-type".into(), json!("cisco-ios"));
    switch.case.target.plain.insert("device-transport".into(), json!("netconf"));
    assert!(switch.connector.check_target(&switch.case.target).expect_err("no NETCONF").message.contains("NETCONF"));
}

#[tokio::test(flavor = "multi_thread")]
async fn junos_conforms_at_its_command_line() {
    passes("ssh (juniper-junos, command line)", async || device(None, ActingAs::Target).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn junos_conforms_over_netconf() {
    passes("ssh (juniper-junos, NETCONF 1.1)", async || device(Some("1.1"), ActingAs::Target).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn junos_conforms_over_netconf_of_the_older_version() {
    passes("ssh (juniper-junos, NETCONF 1.0)", async || device(Some("1.0"), ActingAs::Target).await).await;
}
