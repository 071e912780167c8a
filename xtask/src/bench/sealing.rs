//! Sealing and opening in process: the cryptography alone, without network, holders or store.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use volvelle_fragments::record::fresh_salt;
use volvelle_fragments::{Input, Kek, Place, PrfShare, Record, Suite, combine};

use super::figure::Report;

const ROUNDS: usize = 9;
const TIMES: u32 = 2_000;
const VALUE: &[u8] = br#"{"username":"root","password":"=qGDe_V=n-0OeQS2kTCQuEJz"}"#;

/// Measures with a key at hand, and with the evaluation by two holders that makes it.
pub fn run(report: &mut Report) -> Result<()> {
    let place = Place {
        realm: [1; 16],
        key_id: 1,
        purpose: 1,
        item: [2; 16],
        version: 3,
        path: "/prod/site-01/rack-007/host-000123/root".to_owned(),
    };
    let input = Input { suite: Suite::Ristretto255, place, salt: fresh_salt()? };
    let shares = [share(3)?, share(5)?];
    let kek = derive(&shares, &input)?;
    let record = Record::seal(&input, &kek, false, VALUE)?;
    let seal = || Ok(Record::seal(&input, &kek, false, VALUE)?);
    report.add("seal a value in process, key at hand", "µs", each(seal)?, "");
    let open = || Ok(record.open(&input, &kek)?);
    report.add("open a value in process, key at hand", "µs", each(open)?, "");
    let whole = || Ok(record.open(&input, &derive(&shares, &input)?)?);
    report.add("open a value in process, both fragments' work included", "µs", each(whole)?, "");
    Ok(())
}

fn share(byte: u8) -> Result<PrfShare> {
    let mut bytes = [byte; 32];
    // Below the order of the group.
    bytes[31] = 0;
    Ok(PrfShare::from_bytes(Suite::Ristretto255, &bytes)?)
}

fn derive(shares: &[PrfShare; 2], input: &Input) -> Result<Kek> {
    let x = input.encode()?;
    let answers = [(1, shares[0].evaluate(&x)?), (2, shares[1].evaluate(&x)?)];
    Ok(Kek::derive(&x, &combine(&answers)?, None)?)
}

/// Microseconds that one call takes, per round.
fn each<T>(work: impl Fn() -> Result<T>) -> Result<Vec<f64>> {
    black_box(work()?);
    (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..TIMES {
                black_box(work()?);
            }
            Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES))
        })
        .collect()
}
