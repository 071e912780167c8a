//! What one rotation of a Unix password costs: wall time and processor time of this process, against a real host.
//!
//! `cargo run -p volvelle-connectors --example rotation_cost` (as root; it starts a test host).
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Map, json};
use volvelle_connectors::registry;
use volvelle_domain::Credential;
use volvelle_domain::connector::{ActingAs, ApplyOutcome, Call, PasswordPolicy, ProbeOutcome, TargetParams};
use volvelle_domain::ids::Entropy;
use volvelle_testkit::hosts::{Host, HostKind, INITIAL_PASSWORD};

const ROTATIONS: u32 = 10;

struct Os;

impl Entropy for Os {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the system has randomness");
    }
}

/// Processor time of this process so far.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc is mounted");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a line").split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::main]
async fn main() {
    let host = Host::start(HostKind::Debian).expect("starts");
    let plain = json!({"host": host.addr.ip().to_string(), "port": "22", "ssh-username": "root"});
    let target = TargetParams {
        plain: plain.as_object().expect("an object").clone(),
        secret: Credential::default().with("ssh-password", INITIAL_PASSWORD.into()),
        parent: None,
    };
    let ssh = registry().get("ssh").expect("is there");
    let pinned = [ssh.learn_identity(&target, Duration::from_secs(10)).await.expect("learns").expect("has one")];
    let (params, policy) = (Map::new(), PasswordPolicy::default());
    let mut current = Credential::user_password("app1", INITIAL_PASSWORD.into());
    let mut stages = [Duration::ZERO; 3];
    let before = processor_time();
    for _ in 0..ROTATIONS {
        let mut call = Call {
            proof: "",
            target: &target,
            pinned: &pinned,
            rotator_type: "password",
            params: &params,
            acting: ActingAs::Target,
            current: &current,
            memory: &BTreeMap::new(),
            login_budget: 2,
            timeout: Duration::from_secs(20),
        };
        let start = Instant::now();
        let preflight = ssh.preflight(&call, &policy).await.expect("preflight");
        stages[0] += start.elapsed();
        call.memory = &preflight.memory;
        let candidate = ssh.generate(&call, &policy, &Os).expect("generates");
        let start = Instant::now();
        assert_eq!(ssh.apply(&call, &candidate).await, ApplyOutcome::Applied);
        stages[1] += start.elapsed();
        let start = Instant::now();
        let report = ssh.probe(&call, &[&candidate, &current]).await;
        stages[2] += start.elapsed();
        assert!(matches!(report.outcomes[0], ProbeOutcome::Opens(_)), "{report:?}");
        current = candidate;
    }
    let wall: Duration = stages.iter().sum();
    println!(
        "one rotation: preflight {:?}, apply {:?}, probe {:?}; {:?} wall, {:?} processor time of this process",
        stages[0] / ROTATIONS,
        stages[1] / ROTATIONS,
        stages[2] / ROTATIONS,
        wall / ROTATIONS,
        (processor_time() - before) / ROTATIONS
    );
}
