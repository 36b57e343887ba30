use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorType, ErrorCode};

use super::tree::{BLOCK, How, Id, MAX_NODES, ROOT, Tree};
use crate::runtime::ScratchAccount;

const CREATE: How = How { create: true, exclusive: false, directory: false, truncate: false, write: true };

fn tree(blocks: usize) -> (Tree, ScratchAccount) {
    let account = ScratchAccount::of_bytes(blocks * BLOCK);
    (Tree::new(account.clone()), account)
}

fn make(tree: &mut Tree, path: &str) -> Id {
    tree.open(ROOT, path, CREATE).unwrap()
}

fn names(tree: &Tree, path: &str) -> Vec<String> {
    let directory = tree.find(ROOT, path).unwrap();
    let mut names: Vec<String> = Vec::new();
    while let Some((name, _)) = tree.entry_after(directory, names.last().map(String::as_str)).unwrap() {
        names.push(name);
    }
    names
}

#[test]
fn what_is_written_is_read_and_holes_are_zeros() {
    let (mut tree, account) = tree(8);
    let file = make(&mut tree, "file");
    tree.write(file, 0, b"begin").unwrap();
    tree.write(file, 2 * BLOCK as u64 - 2, b"over").unwrap();
    tree.append(file, b"!").unwrap();
    assert_eq!(tree.stat(file).unwrap().size, 2 * BLOCK as u64 + 3);
    assert_eq!(tree.read(file, 0, 7).unwrap(), (b"begin\0\0".to_vec(), false));
    assert_eq!(tree.read(file, 2 * BLOCK as u64 - 4, 100).unwrap(), (b"\0\0over!".to_vec(), true));
    assert_eq!(tree.read(file, u64::MAX, 100).unwrap(), (Vec::new(), true));
    assert_eq!(account.held(), 4 * BLOCK, "one for itself, three for what it holds");
    // What was cut off is gone.
    tree.resize(file, 2).unwrap();
    tree.resize(file, 6).unwrap();
    assert_eq!(tree.read(file, 0, 100).unwrap(), (b"be\0\0\0\0".to_vec(), true));
    assert_eq!(account.held(), 2 * BLOCK);
}

#[test]
fn no_way_to_a_longer_file_is_longer_than_the_room() {
    let (mut tree, account) = tree(5);
    let file = make(&mut tree, "file");
    tree.write(file, 0, &vec![7; 4 * BLOCK]).unwrap();
    assert_eq!(account.held(), 5 * BLOCK);
    let full = Err(ErrorCode::InsufficientSpace);
    assert_eq!(tree.append(file, b"x"), full);
    assert_eq!(tree.write(file, 4 * BLOCK as u64, b"x"), full);
    assert_eq!(tree.resize(file, 4 * BLOCK as u64 + 1), full, "a hole takes room");
    assert_eq!(tree.resize(file, u64::MAX), full);
    assert_eq!(tree.write(file, 1 << 40, b"x"), full);
    assert_eq!(tree.write(file, u64::MAX, b"x"), Err(ErrorCode::FileTooLarge));
    assert_eq!(tree.open(ROOT, "other", CREATE).err(), Some(ErrorCode::InsufficientSpace));
    assert_eq!(tree.create_directory(ROOT, "folder"), full);
    // What was refused changed nothing, and what is there can be written again.
    assert_eq!((tree.stat(file).unwrap().size, account.held()), (4 * BLOCK as u64, 5 * BLOCK));
    tree.write(file, 0, &vec![8; 4 * BLOCK]).unwrap();
    assert_eq!(names(&tree, "."), ["file"]);
}

#[test]
fn room_comes_back_when_the_last_who_can_reach_it_lets_go() {
    let (mut tree, account) = tree(5);
    let file = make(&mut tree, "file");
    tree.write(file, 0, &vec![7; 4 * BLOCK]).unwrap();
    tree.remove_file(ROOT, "file").unwrap();
    assert_eq!(account.held(), 5 * BLOCK, "it is open");
    assert_eq!(tree.stat(file).unwrap().links, 0);
    assert_eq!(tree.open(ROOT, "other", CREATE).err(), Some(ErrorCode::InsufficientSpace));
    tree.release(file);
    assert_eq!(account.held(), 0);
    assert_eq!(tree.stat(file).err(), Some(ErrorCode::NoEntry));
    // A file that another one takes the name of is gone as well.
    let (one, two) = (make(&mut tree, "one"), make(&mut tree, "two"));
    tree.write(two, 0, &[1; BLOCK]).unwrap();
    tree.release(one);
    tree.release(two);
    tree.rename(ROOT, "one", ROOT, "two").unwrap();
    assert_eq!((account.held(), names(&tree, ".")), (BLOCK, vec!["two".to_owned()]));
    assert_ne!(make(&mut tree, "three"), one, "no number comes twice");
}

/// The list of its pieces is not of the account: what a file once had room for must not stay.
#[test]
fn a_file_that_was_cut_keeps_no_list_of_what_it_had() {
    let (mut tree, _) = tree(1025);
    let file = make(&mut tree, "file");
    for left in [0, 1, 300] {
        tree.resize(file, 1024 * BLOCK as u64).unwrap();
        tree.resize(file, left * BLOCK as u64).unwrap();
        assert!(tree.room_in_list(file) <= 2 * left as usize + 1, "{left}: {}", tree.room_in_list(file));
    }
}

#[test]
fn there_are_so_many_files_and_no_more_however_small() {
    let (mut tree, account) = tree(10 * MAX_NODES);
    for n in 0..MAX_NODES {
        let file = make(&mut tree, &format!("f{n}"));
        tree.release(file);
    }
    assert_eq!(tree.open(ROOT, "more", CREATE).err(), Some(ErrorCode::InsufficientSpace));
    assert_eq!(tree.create_directory(ROOT, "more"), Err(ErrorCode::InsufficientSpace));
    assert_eq!(account.held(), MAX_NODES * BLOCK);
    tree.remove_file(ROOT, "f0").unwrap();
    tree.create_directory(ROOT, "more").unwrap();
}

#[test]
fn no_path_leaves_the_directory_that_it_starts_in() {
    let (mut tree, _) = tree(64);
    tree.create_directory(ROOT, "a").unwrap();
    tree.create_directory(ROOT, "a/b").unwrap();
    make(&mut tree, "file");
    make(&mut tree, "a/b/deep");
    let inner = tree.find(ROOT, "a/b").unwrap();
    assert!(tree.find(inner, "deep").is_ok() && tree.find(inner, "./../b/deep").is_err());
    assert!(tree.find(ROOT, "a/b/../../file").is_ok());
    for outside in ["..", "../file", "a/../../file", "/", "/file", "/tmp/file"] {
        assert_eq!(tree.find(ROOT, outside), Err(ErrorCode::NotPermitted), "{outside}");
        assert_eq!(tree.open(ROOT, outside, CREATE), Err(ErrorCode::NotPermitted), "{outside}");
        assert_eq!(tree.rename(ROOT, "file", ROOT, outside), Err(ErrorCode::NotPermitted), "{outside}");
    }
    for (path, code) in [
        ("", ErrorCode::NoEntry),
        ("none", ErrorCode::NoEntry),
        ("none/../file", ErrorCode::NoEntry),
        ("file/", ErrorCode::NotDirectory),
        ("file/.", ErrorCode::NotDirectory),
        ("file/../file", ErrorCode::NotDirectory),
        ("a\0b", ErrorCode::Invalid),
    ] {
        assert_eq!(tree.find(ROOT, path), Err(code), "{path:?}");
    }
    assert_eq!(tree.find(ROOT, &"x".repeat(256)), Err(ErrorCode::NameTooLong));
    assert_eq!(tree.find(ROOT, &"a/../".repeat(1000)), Err(ErrorCode::NameTooLong));
}

#[test]
fn opening_and_removing_keep_to_what_files_and_directories_are() {
    let (mut tree, account) = tree(64);
    tree.create_directory(ROOT, "a").unwrap();
    let file = make(&mut tree, "file");
    tree.append(file, b"text").unwrap();
    let open = |tree: &mut Tree, path: &str, how: How| tree.open(ROOT, path, how).err();
    assert_eq!(open(&mut tree, "none", How { write: true, ..How::default() }), Some(ErrorCode::NoEntry));
    assert_eq!(open(&mut tree, "new/", CREATE), Some(ErrorCode::IsDirectory));
    assert_eq!(open(&mut tree, "file", How { exclusive: true, ..CREATE }), Some(ErrorCode::Exist));
    assert_eq!(
        open(&mut tree, "file", How { directory: true, ..How::default() }),
        Some(ErrorCode::NotDirectory)
    );
    for how in [CREATE, How { write: true, ..How::default() }, How { truncate: true, ..How::default() }] {
        assert_eq!(open(&mut tree, "a", how), Some(ErrorCode::IsDirectory));
    }
    assert_eq!(open(&mut tree, "a", How { directory: true, ..How::default() }), None);
    assert_eq!(tree.remove_directory(ROOT, "file"), Err(ErrorCode::NotDirectory));
    assert_eq!(tree.remove_file(ROOT, "a"), Err(ErrorCode::IsDirectory));
    assert_eq!(tree.remove_directory(ROOT, "."), Err(ErrorCode::Invalid));
    // Removed while it is open: nothing comes to lie where no name leads.
    let a = tree.find(ROOT, "a").unwrap();
    tree.remove_directory(ROOT, "a").unwrap();
    assert_eq!(tree.open(a, "lost", CREATE).err(), Some(ErrorCode::NoEntry));
    let account_before = account.held();
    assert_eq!(tree.rename(ROOT, "file", a, "lost"), Err(ErrorCode::NoEntry));
    assert_eq!((names(&tree, "."), account.held()), (vec!["file".to_owned()], account_before));
    assert_eq!(tree.stat(a).unwrap().kind, DescriptorType::Directory);
    assert_eq!(
        (tree.entry_after(a, None), tree.entry_after(file, None)),
        (Ok(None), Err(ErrorCode::NotDirectory))
    );
    assert_eq!(open(&mut tree, "file", How { truncate: true, ..CREATE }), None);
    assert_eq!(tree.stat(file).unwrap().size, 0);
}

#[test]
fn a_rename_moves_or_replaces_and_makes_no_circle() {
    let (mut tree, _) = tree(64);
    for path in ["a", "a/b", "empty", "full"] {
        tree.create_directory(ROOT, path).unwrap();
    }
    for path in ["file", "full/file", "a/b/deep"] {
        make(&mut tree, path);
    }
    let to = |tree: &mut Tree, from: &str, to: &str| tree.rename(ROOT, from, ROOT, to);
    assert_eq!(to(&mut tree, "a", "a/b/a"), Err(ErrorCode::Invalid));
    assert_eq!(to(&mut tree, "a", "a"), Ok(()));
    assert_eq!(to(&mut tree, "a", "full"), Err(ErrorCode::NotEmpty));
    assert_eq!(to(&mut tree, "a", "file"), Err(ErrorCode::NotDirectory));
    assert_eq!(to(&mut tree, "file", "empty"), Err(ErrorCode::IsDirectory));
    assert_eq!(to(&mut tree, "file", "other/"), Err(ErrorCode::NotDirectory));
    assert_eq!(to(&mut tree, "none", "other"), Err(ErrorCode::NoEntry));
    assert_eq!(to(&mut tree, ".", "other"), Err(ErrorCode::Busy));
    to(&mut tree, "a", "empty").unwrap();
    to(&mut tree, "file", "empty/b/file").unwrap();
    assert_eq!(names(&tree, "."), ["empty", "full"]);
    assert_eq!(names(&tree, "empty/b"), ["deep", "file"]);
    // It has moved: it may go where it came from, and still not into itself.
    assert_eq!(to(&mut tree, "empty", "empty/b/c"), Err(ErrorCode::Invalid));
    to(&mut tree, "empty/b", "b").unwrap();
    to(&mut tree, "empty", "b/empty").unwrap();
    assert_eq!(to(&mut tree, "b", "b/empty/b"), Err(ErrorCode::Invalid));
}
