//! No public function of any crate takes two fragments, so that nothing can put a key together.
//!
//! The sources are read as text: each public function's parameters, counting every type that holds a fragment.

use std::collections::BTreeSet;
use std::path::Path;

/// Source without comments, strings left alone.
fn code(source: &str) -> String {
    source.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The text from an opening bracket to the one that closes it.
fn bracketed(text: &str, open: char, close: char) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        if c == open {
            depth += 1;
        } else if c == close {
            depth -= 1;
            if depth == 0 {
                return &text[..=at];
            }
        }
    }
    text
}

/// Names of types that hold a fragment, or one of those types.
fn holders_of_fragments(sources: &[String]) -> BTreeSet<String> {
    let mut known = BTreeSet::from(["PrfShare".to_owned()]);
    for _ in 0..5 {
        for source in sources {
            for keyword in ["struct ", "enum ", "type "] {
                for (at, _) in source.match_indices(keyword) {
                    let rest = &source[at + keyword.len()..];
                    let Some(name) = words(rest).next() else { continue };
                    let end = rest.find([';', '{']).unwrap_or(rest.len());
                    let body = match rest.as_bytes().get(end) {
                        Some(b'{') => bracketed(&rest[end..], '{', '}'),
                        _ => &rest[..end],
                    };
                    if words(body).any(|word| known.contains(word)) {
                        known.insert(name.to_owned());
                    }
                }
            }
        }
    }
    known
}

/// Public functions that could be given two fragments: two parameters that hold one, or one that holds many.
fn offenders(source: &str, known: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices("fn ") {
        let before = source[..at].rsplit(['\n', ';', '}', '{']).next().unwrap_or("");
        let in_trait = source[..at].rfind("\nimpl").is_some_and(|at| {
            let head = source[at..].split('{').next().unwrap_or("");
            head.contains(" for ")
        });
        if !(words(before).any(|word| word == "pub") || in_trait) || before.contains("pub(") {
            continue;
        }
        let rest = &source[at + 3..];
        let name = words(rest).next().unwrap_or("");
        let Some(open) = rest.find('(') else { continue };
        let parameters = bracketed(&rest[open..], '(', ')');
        let own = source[..at].rfind("\nimpl").map_or("", |at| source[at..].split('{').next().unwrap_or(""));
        let own_is_one = words(own).last().is_some_and(|word| known.contains(word));
        let named = words(parameters).filter(|word| known.contains(*word) || *word == "Self" && own_is_one).count();
        let receiver = usize::from(own_is_one && words(parameters).take(3).any(|word| word == "self"));
        let many = ["Vec", "BTreeMap", "HashMap", "Iterator", "IntoIterator"];
        // A single fragment beside a slice of other things is fine.
        let collected = parameters.split(',').any(|part| {
            words(part).any(|word| known.contains(word))
                && (part.contains('[') || words(part).any(|word| many.contains(&word)))
        });
        if named + receiver > 1 || collected {
            found.push(name.to_owned());
        }
    }
    found
}

fn collect(folder: &Path, sources: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("lists").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(code(&std::fs::read_to_string(path).expect("reads")));
        }
    }
}

#[test]
fn no_public_function_of_any_crate_takes_two_fragments() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a folder");
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(crates).expect("lists").flatten() {
        let holds = entry.file_name() == "fragments" || entry.file_name() == "holder";
        collect(&entry.path().join("src"), if holds { &mut own } else { &mut others });
    }
    assert!(own.len() > 15 && others.len() > 60, "the sources are found");
    let known = holders_of_fragments(&own);
    assert!(known.contains("Outcome"), "{known:?}");
    // Other crates have types of the same names; they can hold a fragment only where they name these two crates.
    others.retain(|source| source.contains("volvelle_fragments") || source.contains("volvelle_holder"));
    assert!(!others.is_empty(), "somebody uses the crates");
    for source in own.iter().chain(&others) {
        assert_eq!(offenders(source, &known), Vec::<String>::new());
    }
}
