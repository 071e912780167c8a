//! The gateway: its front alone, and a whole one in this process, over real holders and a real database.

#[path = "gateway/audit.rs"]
mod audit_cases;
#[path = "gateway/burial.rs"]
mod burial_cases;
#[path = "gateway/console.rs"]
mod console;
#[path = "gateway/fleet.rs"]
mod fleet;
#[path = "gateway/front.rs"]
mod front;
#[path = "gateway/grants.rs"]
mod grants;
#[path = "gateway/keys.rs"]
mod keys;
#[path = "gateway/parents.rs"]
mod parents;
#[path = "gateway/rekey.rs"]
mod rekey;
#[path = "gateway/roles.rs"]
mod roles;
#[path = "gateway/schedule.rs"]
mod schedule;
#[path = "gateway/sign_in.rs"]
mod sign_in;
#[path = "gateway/statics.rs"]
mod statics;
#[path = "gateway/surface.rs"]
mod surface;
#[path = "gateway/tenants.rs"]
mod tenants;
#[path = "gateway/world.rs"]
mod world;
