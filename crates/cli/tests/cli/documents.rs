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

/// Where the part that is made from the declaration begins.
const MADE: &str = "<!-- Made from the program";

#[test]
fn docs_have_a_page_for_every_kind_of_target_with_what_its_connector_declares() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/targets");
    let declarations = volvelle_gateway::declarations();
    assert!(declarations.len() >= 5, "the kinds are there");
    for declaration in declarations {
        let file = folder.join(format!("{}.md", declaration.secret_kind));
        let page = std::fs::read_to_string(&file).unwrap_or_default();
        let written = page.split(MADE).next().unwrap_or_default().trim_end();
        for part in ["## Rights", "## What happens on failure", "## How it was verified"] {
            assert!(written.contains(part), "docs/targets/{}.md has no part {part:?}", declaration.secret_kind);
        }
        let now = format!("{written}\n\n{}", Person::new().succeeds(&format!("reference {}", declaration.kind)));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, &now).expect("writing the page");
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            now == kept,
            "docs/targets/{}.md is stale: UPDATE_DOCS=1 cargo test -p volvelle-cli docs",
            declaration.secret_kind
        );
    }
}
