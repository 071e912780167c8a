//! x
use anyhow::Result;
/// x
pub fn run(_names: Vec<String>) -> Result<()> {
    Ok(())
}
