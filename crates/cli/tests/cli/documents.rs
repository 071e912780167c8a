//! The reference pages say what the program does: they are made from it.

use std::path::Path;

use super::program::Person;

#[test]
fn docs_reference_pages_are_what_the_program_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    for page in ["cli", "api"] {
        let file = folder.join(format!("{page}.md"));
        let now = Person::new().succeeds(&format!("reference {page}"));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::create_dir_all(&folder).expect("the folder");
            std::fs::write(&file, &now).expect("writing the page");
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(now == kept, "docs/reference/{page}.md is stale: UPDATE_DOCS=1 cargo test -p volvelle-cli docs");
    }
}
