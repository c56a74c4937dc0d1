// SPDX-License-Identifier: Apache-2.0
//! The structure of the core: imports point down the floors, and there is no circle of imports, not even between two
//! files. Reads the sources as text: `use` items, and paths that begin with `crate` or `super`, outside of tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. What stands on one line may not import each other.
const FLOORS: &[&[&str]] = &[
    &["types"],
    &["error", "lock_order", "metrics"],
    &["vfs", "stderr_log", "progress_bar", "program_output"],
    &["wal"],
    &["recovery"],
    &["blob"],
    &["backup", "compaction", "scrub"],
    &["directory"],
    &["datastore"],
    &["replication"],
    &["monitoring", "comparison"],
    &["engine"],
    &["ffi", "tgbackup", "tglogutil", "tgreplica"],
];

/// A source file and the module that it is, as `["crate", "wal", "entry"]`.
struct Source {
    module: Vec<String>,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> BTreeMap<PathBuf, Source> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "main.rs" && !name.ends_with("tests.rs") {
                let text = without_tests_and_comments(&fs::read_to_string(&path).unwrap());
                found.insert(path.clone(), Source { module: module_of(&path), text });
            }
        }
    }
    found
}

fn module_of(path: &Path) -> Vec<String> {
    let relative = path.strip_prefix(root()).unwrap().with_extension("");
    let mut module = vec!["crate".to_owned()];
    module.extend(relative.iter().map(|part| part.to_str().unwrap().to_owned()));
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

fn without_tests_and_comments(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Every path in `text` that leads from the root of the crate or upwards, with the braces of `use` items taken apart.
fn paths(source: &Source) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in source.text.match_indices(start) {
            let before = source.text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            expand(&source.text[at..], &mut Vec::new(), &mut found);
        }
    }
    found.into_iter().map(|path| absolute(&source.module, path)).collect()
}

/// Takes apart what stands at the beginning of `text`: `a::b::{c, d::e}`. Returns what is behind it.
fn expand<'a>(text: &'a str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let depth = prefix.len();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner;
            loop {
                rest = expand(rest, prefix, found).trim_start();
                match rest.strip_prefix(',') {
                    Some(next) => rest = next,
                    None => break,
                }
            }
            rest = rest.split_once('}').map_or("", |(_, behind)| behind);
            break;
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if end == 0 {
            break;
        }
        prefix.push(rest[..end].to_owned());
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(next) => rest = next,
            None => {
                found.push(prefix.clone());
                let alias = rest.trim_start().strip_prefix("as ");
                if let Some(alias) = alias {
                    rest = alias.trim_start().trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
                }
                break;
            }
        }
    }
    prefix.truncate(depth);
    rest
}

fn absolute(module: &[String], path: Vec<String>) -> Vec<String> {
    let mut at = match path[0].as_str() {
        "crate" => vec!["crate".to_owned()],
        _ => module.to_vec(),
    };
    for part in path {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => {
                at.pop();
            }
            _ => at.push(part),
        }
    }
    at
}

/// Which file imports from which.
fn imports() -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
    let sources = sources();
    let files: BTreeMap<&[String], &PathBuf> = sources.iter().map(|(path, s)| (s.module.as_slice(), path)).collect();
    let mut imports = BTreeMap::new();
    for (path, source) in &sources {
        let mut targets = BTreeSet::new();
        for import in paths(source) {
            let owner = (1..=import.len()).rev().find_map(|len| files.get(&import[..len]));
            targets.extend(owner.filter(|&&owner| owner != path).map(|&owner| owner.clone()));
        }
        // What a module re-exports comes from its children.
        for line in source.text.lines().filter(|line| line.trim_start().contains("use ")) {
            let item = line.trim_start().split("use ").nth(1).unwrap_or("");
            let first = item.split("::").next().unwrap_or("");
            let child: Vec<String> = source.module.iter().cloned().chain([first.to_owned()]).collect();
            targets.extend(files.get(child.as_slice()).map(|&file| file.clone()));
        }
        imports.insert(path.clone(), targets);
    }
    imports
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The files that can be reached from `from` by imports.
fn reachable(imports: &BTreeMap<PathBuf, BTreeSet<PathBuf>>, from: &Path) -> BTreeSet<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(path) = open.pop() {
        for target in &imports[&path] {
            if seen.insert(target.clone()) {
                open.push(target.clone());
            }
        }
    }
    seen
}

#[test]
fn no_two_files_import_each_other_directly_or_by_way_of_others() {
    let imports = imports();
    let reach: BTreeMap<&PathBuf, BTreeSet<PathBuf>> =
        imports.keys().map(|path| (path, reachable(&imports, path))).collect();
    let mut circles = BTreeSet::new();
    for (path, targets) in &imports {
        for target in targets {
            if reach[target].contains(path) {
                circles.insert(format!("{} imports {}, which leads back to it", name(path), name(target)));
            }
        }
    }
    assert!(circles.is_empty(), "circles of imports:\n{}", circles.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn imports_point_down_the_floors() {
    let floor = |path: &Path| {
        let top = name(path).split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        let level = FLOORS.iter().position(|floor| floor.contains(&top.as_str()));
        (level, top)
    };
    let mut wrong = Vec::new();
    for (path, targets) in imports() {
        let (level, top) = floor(&path);
        if top == "lib" {
            continue;
        }
        let Some(level) = level else {
            wrong.push(format!("{} stands on no floor: add its folder to FLOORS", name(&path)));
            continue;
        };
        for target in targets {
            let (below, folder) = floor(&target);
            if folder != top && below.is_none_or(|below| below >= level) {
                wrong.push(format!("{} imports {}", name(&path), name(&target)));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that do not point down:\n{}", wrong.join("\n"));
}

/// Locks have their types from one file, and with them their place in the order that it checks.
#[test]
fn every_lock_is_in_the_one_order_of_locks() {
    const BARE: &[&str] = &["Mutex", "RwLock", "Condvar"];
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !(c.is_alphanumeric() || c == '_')).map(str::to_owned).collect()
    };
    let mut wrong = Vec::new();
    for (path, source) in sources() {
        let shown = name(&path);
        if shown == "lock_order.rs" {
            continue;
        }
        if words(&source.text).iter().any(|word| word == "parking_lot") {
            wrong.push(format!("{shown} uses parking_lot"));
        }
        for (at, start) in source.text.match_indices("std::sync::") {
            let item = &source.text[at + start.len()..];
            let end = match item.starts_with('{') {
                true => item.find(';'),
                false => item.find(|c: char| !(c.is_alphanumeric() || c == '_')),
            };
            let named = words(&item[..end.unwrap_or(item.len())]);
            wrong
                .extend(named.iter().filter(|word| BARE.contains(&word.as_str())).map(|w| format!("{shown} uses {w}")));
        }
    }
    assert!(wrong.is_empty(), "locks without a rank, see src/lock_order.rs:\n{}", wrong.join("\n"));
}

/// Lines of the sources, tests and pages, and lines of a source file without a reason in its first lines.
#[test]
fn lines_and_files_are_of_a_length_that_can_be_read() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["src", "tests", "docs", "cpp_shim", "benches", "examples", "scripts"].map(|f| top.join(f)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("golden") {
                    folders.push(path);
                }
                continue;
            }
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
            if !["rs", "cpp", "h", "c", "sh", "md", "py"].contains(&extension) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let shown = path.strip_prefix(top).unwrap().display().to_string();
            for (number, line) in text.lines().enumerate().filter(|(_, line)| line.chars().count() > 120) {
                let is_table = extension == "md" && line.starts_with('|');
                let is_one_word = !line.trim().contains(' ');
                if !is_table && !is_one_word {
                    wrong.push(format!("{shown}:{}: {} characters", number + 1, line.chars().count()));
                }
            }
            let lines = text.lines().count();
            let says_why = text.lines().take(12).any(|line| line.contains("One file because"));
            if shown.starts_with("src/") && lines > 500 && !says_why {
                wrong.push(format!("{shown}: {lines} lines without a reason in its first lines"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The page that says where things are names no file that is not there.
#[test]
fn the_page_of_the_architecture_names_files_that_exist() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md")).unwrap();
    let files: Vec<String> = sources().keys().map(|path| format!("src/{}", name(path))).collect();
    let named = page.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs") && !word.starts_with("tests/"));
    let missing: Vec<&str> =
        named.filter(|word| !files.iter().any(|file| file == word || file.ends_with(&format!("/{word}")))).collect();
    assert!(missing.is_empty(), "docs/architecture.md names files that are not there: {missing:?}");
}

/// Each break of `scripts/deliberate_breaks.py` names lines that are once in its file, or nobody could make it.
#[test]
fn deliberate_breaks_can_be_made() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(root.join("tests/deliberate_breaks.txt")).unwrap();
    let mut wrong = Vec::new();
    for entry in list.split("\n== ").skip(1) {
        let (title, rest) = entry.split_once('\n').unwrap();
        let file = rest.lines().find_map(|line| line.strip_prefix("in ")).expect(title);
        let old: Vec<&str> = rest.lines().filter_map(|line| line.strip_prefix('-')).collect();
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        match text.matches(&old.join("\n")).count() {
            1 if !old.is_empty() => {}
            count => wrong.push(format!("{title}: its {} lines are {count} times in {file}", old.len())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
