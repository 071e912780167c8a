//! Network devices: each platform by its profile, the conformance suite, and what must never be typed.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use volvelle_domain::connector::Connector;
use volvelle_testkit::switch::{ENABLE_PASSWORD, INITIAL_PASSWORD, Memory, Switch};

use super::conformance::{Subject, passes};
use super::*;

/// A device with one user to be rotated.
pub struct Device {
    pub switch: Switch,
    pub case: Case,
    pub connector: Arc<dyn Connector>,
}

impl Device {
    async fn new(platform: &str, acting_user: &str, acting: ActingAs) -> Self {
        Self::on(Switch::start(platform).expect("starts"), platform, acting_user, acting).await
    }

    pub async fn on(switch: Switch, platform: &str, acting_user: &str, acting: ActingAs) -> Self {
        let plain = json!({"host": "127.0.0.1", "port": switch.addr.port().to_string(), "ssh-username": acting_user,
            "device-type": platform});
        let target = TargetParams {
            plain: plain.as_object().expect("an object").clone(),
            secret: Credential::default()
                .with("ssh-password", INITIAL_PASSWORD.into())
                .with("enable-password", ENABLE_PASSWORD.into()),
            parent: None,
        };
        let connector = registry().get("ssh").expect("is there");
        connector.check_target(&target).expect("fine");
        let pin = connector.learn_identity(&target, Duration::from_secs(10)).await.expect("learns").expect("has one");
        let case = Case {
            target,
            pinned: vec![pin],
            rotator_type: "password",
            params: Map::new(),
            acting,
            current: Credential::user_password("app1", INITIAL_PASSWORD.into()),
            memory: BTreeMap::new(),
            timeout: Duration::from_secs(20),
        };
        Self { switch, case, connector }
    }

    pub fn opens_now(&mut self, credential: &Credential) -> bool {
        let user = credential.expose_text("username").expect("has one");
        self.switch.opens(user, credential.expose_text("password").expect("has one")).expect("the truth")
    }

    pub async fn changed(&mut self) -> (Credential, ApplyOutcome) {
        let policy = PasswordPolicy::default();
        self.case.memory = self.connector.preflight(&self.case.call(), &policy).await.expect("ready").memory;
        let candidate = self.connector.generate(&self.case.call(), &policy, &Os).expect("generates");
        let outcome = self.connector.apply(&self.case.call(), &candidate).await;
        (candidate, outcome)
    }
}

#[async_trait]
impl Subject for Device {
    fn connector(&self) -> Arc<dyn Connector> {
        Arc::clone(&self.connector)
    }

    fn case(&self) -> &Case {
        &self.case
    }

    fn case_mut(&mut self) -> &mut Case {
        &mut self.case
    }

    fn peer(&self) -> SocketAddr {
        self.switch.addr
    }

    fn reach(&mut self, address: SocketAddr) {
        self.case.target.plain.insert("port".into(), json!(address.port().to_string()));
        self.case.pinned[0].address = address.to_string();
    }

    async fn opens(&mut self, credential: &Credential) -> bool {
        self.opens_now(credential)
    }

    fn spoil(&mut self) {
        match self.case.acting {
            ActingAs::Target => self.case.target.secret = Credential::default().with("ssh-password", "Wrong-1".into()),
            ActingAs::User => self.case.current = Credential::user_password("app1", "Wrong-1".into()),
        }
    }

    async fn demote(&mut self) -> bool {
        if self.case.rotator_type == "enable" {
            self.case.current = Credential::user_password("enable", "Wrong-1".into());
        }
        self.case.target.plain.insert("ssh-username".into(), json!("ops"));
        self.case.target.secret = self.case.target.secret.clone().with("enable-password", "Wrong-1".into());
        self.case.acting == ActingAs::Target
    }

    async fn swap(&mut self) -> bool {
        // Every device of the simulator has the same host key: so another one is pinned.
        let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
        self.case.pinned[0].public_key = other.to_owned();
        true
    }

    async fn save(&mut self) -> bool {
        self.switch.keep().expect("keeps");
        true
    }

    async fn restore(&mut self) {
        self.switch.put_back().expect("puts back");
    }

    async fn failures(&mut self) -> Option<usize> {
        self.switch.failures().ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cisco_ios_conforms_where_an_administrator_acts() {
    passes("ssh (cisco-ios, admin acts)", async || Device::new("cisco-ios", "admin", ActingAs::Target).await).await;
}

/// A device whose enable secret is rotated; nothing else of the target needs it.
async fn with_enable_secret(platform: &str) -> Device {
    let mut device = Device::new(platform, "admin", ActingAs::Target).await;
    device.case.target.secret = Credential::default().with("ssh-password", INITIAL_PASSWORD.into());
    device.case.rotator_type = "enable";
    let given = TargetParams {
        secret: Credential::default().with("rotated-password", ENABLE_PASSWORD.into()),
        ..TargetParams::default()
    };
    device.case.current = device.connector.initial_credential("enable", &device.case.target, &given).expect("fine");
    device
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enable_secret_conforms() {
    passes("ssh (cisco-ios, enable secret)", async || with_enable_secret("cisco-ios").await).await;
    passes("ssh (arista-eos, enable secret)", async || with_enable_secret("arista-eos").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enable_secret_that_the_target_holds_raises_the_acting_user_and_is_fed_back() {
    for platform in ["cisco-ios", "arista-eos"] {
        let mut device = Device::new(platform, "ops", ActingAs::Target).await;
        device.case.rotator_type = "enable";
        let target = device.case.target.clone();
        device.case.current =
            device.connector.initial_credential("enable", &target, &TargetParams::default()).expect("the target's");
        assert_eq!(device.case.current.expose_text("password"), Some(ENABLE_PASSWORD));
        device.connector.check_secret(&device.case.call(), &device.case.current).expect("fine");
        let (candidate, outcome) = device.changed().await;
        assert_eq!(outcome, ApplyOutcome::Applied, "{platform}");
        let report = device.connector.probe(&device.case.call(), &[&candidate, &device.case.current]).await;
        assert_eq!(report.outcomes[0], ProbeOutcome::Opens(Evidence::WitnessRead), "{platform}");
        let own = *device.connector.declaration().rotator_type("enable").expect("is there");
        let fed = own.feed(&target, &candidate).expect("the target holds the former one");
        assert_eq!(fed.expose_text("enable-password"), candidate.expose_text("password"));
        device.case.target.secret = fed;
        assert!(own.feed(&device.case.target, &candidate).is_none(), "it is there already");
        // Nothing else of the target stands before a closed door.
        device.case.rotator_type = "password";
        device.case.current = Credential::user_password("app1", INITIAL_PASSWORD.into());
        assert_eq!(device.changed().await.1, ApplyOutcome::Applied, "{platform}");
    }
    let admin = with_enable_secret("cisco-ios").await;
    let own = *admin.connector.declaration().rotator_type("enable").expect("is there");
    assert!(!own.feeds_into(&admin.case.target), "a target without one goes on without one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enable_secret_is_rotated_as_a_secret_of_its_own() {
    let mut device = with_enable_secret("cisco-ios").await;
    device.connector.check_secret(&device.case.call(), &device.case.current).expect("fine");
    let (candidate, outcome) = device.changed().await;
    assert_eq!(outcome, ApplyOutcome::Applied);
    device.switch.reload().expect("restarts");
    assert!(device.opens_now(&candidate) && !device.opens_now(&device.case.current.clone()));
    let password = candidate.expose_text("password").expect("has one");
    assert!(!device.switch.typed().expect("lines").iter().any(|line| line.contains(password)));
    // Another user gets up with it.
    let mut other = device.case.target.secret.clone();
    other = other.with("enable-password", password.into());
    device.case.target.secret = other;
    device.case.target.plain.insert("ssh-username".into(), json!("ops"));
    device.case.rotator_type = "password";
    device.case.current = Credential::user_password("app1", INITIAL_PASSWORD.into());
    assert_eq!(device.changed().await.1, ApplyOutcome::Applied);
    device.case.rotator_type = "enable";
    let refused =
        |device: &Device| device.connector.check_secret(&device.case.call(), &candidate).expect_err("refused").message;
    device.case.acting = ActingAs::User;
    device.case.target.secret = Credential::default();
    assert!(refused(&device).contains("cannot change itself"));
    device.case.target.plain.insert("device-type".into(), json!("cisco-nxos"));
    assert!(refused(&device).contains("no enable secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_platform_is_rotated_saved_and_read_and_no_password_is_typed() {
    for platform in ["cisco-ios", "cisco-nxos", "arista-eos"] {
        for acting_user in ["admin", "ops"] {
            let mut device = Device::new(platform, acting_user, ActingAs::Target).await;
            let (candidate, outcome) = device.changed().await;
            assert_eq!(outcome, ApplyOutcome::Applied, "{platform} {acting_user}");
            let report = device.connector.probe(&device.case.call(), &[&candidate, &device.case.current]).await;
            let witnessed = [ProbeOutcome::Opens(Evidence::WitnessRead), ProbeOutcome::Refused(Evidence::WitnessRead)];
            assert_eq!(report.outcomes, witnessed, "{platform} {acting_user}");
            device.switch.reload().expect("restarts");
            assert!(device.opens(&candidate).await, "{platform}: the change was not saved");
            let password = candidate.expose_text("password").expect("has one");
            let typed = device.switch.typed().expect("lines");
            assert!(!typed.iter().any(|line| line.contains(password)), "{platform}: {typed:?}");
            // The password of the privileged mode is typed once per shell, after the device asked for it.
            let asked = typed.iter().filter(|line| *line == "enable").count();
            assert_eq!(typed.iter().filter(|line| *line == ENABLE_PASSWORD).count(), asked, "{platform}");
            assert_eq!(asked > 0, acting_user == "ops", "{platform}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_the_user_describes_is_rotated() {
    let mut device = Device::new("cisco-ios", "admin", ActingAs::Target).await;
    let page = include_str!("../../../../docs/targets/devices.md");
    let profile = page.split_once("```toml\n").expect("the page has one").1.split_once("```").expect("it ends").0;
    device.case.target.plain.insert("device-type".into(), json!("custom"));
    device.case.target.plain.insert("device-profile".into(), json!(profile));
    device.connector.check_target(&device.case.target).expect("fine");
    let (candidate, outcome) = device.changed().await;
    assert_eq!(outcome, ApplyOutcome::Applied);
    device.switch.reload().expect("restarts");
    assert!(device.opens(&candidate).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_a_device_changes_itself() {
    let mut device = Device::new("cisco-ios", "admin", ActingAs::User).await;
    let (candidate, outcome) = device.changed().await;
    assert_eq!(outcome, ApplyOutcome::Applied);
    let report = device.connector.probe(&device.case.call(), &[&candidate, &device.case.current]).await;
    assert_eq!(report.outcomes[0], ProbeOutcome::Opens(Evidence::Login), "{report:?}");
    assert_eq!((report.failed_logins, device.switch.failures().expect("counts")), (0, 0));
    assert!(device.opens(&candidate).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_not_saved_is_not_called_done() {
    let mut device = Device::new("cisco-ios", "admin", ActingAs::Target).await;
    device.switch.fill(Memory::Full).expect("fills");
    let (candidate, outcome) = device.changed().await;
    assert!(matches!(&outcome, ApplyOutcome::Ambiguous(f) if f.message.contains("not saved")), "{outcome:?}");
    let report = device.connector.probe(&device.case.call(), &[&candidate, &device.case.current]).await;
    assert!(matches!(&report.outcomes[0], ProbeOutcome::Unknown(f) if f.message.contains("saved")), "{report:?}");
    device.switch.fill(Memory::Free).expect("frees");
    assert_eq!(device.connector.apply(&device.case.call(), &candidate).await, ApplyOutcome::Applied, "only saves");
    let report = device.connector.probe(&device.case.call(), &[&candidate]).await;
    assert_eq!(report.outcomes, [ProbeOutcome::Opens(Evidence::WitnessRead)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_lacks_is_told_before_anything_changes() {
    let mut device = Device::new("cisco-ios", "admin", ActingAs::Target).await;
    device.case.current = Credential::user_password("nobody", INITIAL_PASSWORD.into());
    let policy = PasswordPolicy::default();
    let failure = device.connector.preflight(&device.case.call(), &policy).await.expect_err("no such user");
    assert_eq!(failure.class, FailureClass::Config, "{failure:?}");
    device.case.target.plain.insert("device-type".into(), json!("toaster"));
    let failure = device.connector.check_target(&device.case.target).expect_err("no such platform");
    assert!(failure.hint.contains("cisco-ios"), "{failure:?}");
    device.case.target.plain.insert("device-type".into(), json!("cisco-ios"));
    device.case.rotator_type = "key";
    let failure = device.connector.check_secret(&device.case.call(), &device.case.current).expect_err("no keys");
    assert_eq!(failure.class, FailureClass::Config);
}
