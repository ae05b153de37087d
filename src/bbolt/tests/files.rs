//! Files that etcd made are read, files that are written are read back, damaged ones are refused.

#![allow(clippy::unwrap_used)]

use bbolt::{Db, Error, Hollow, PAGE_SIZE, Problem, Walk, Writer};

/// What `etcdctl snapshot save` of etcd 3.7.3 saved: puts, deletes, a transaction, a lease, a value larger
/// than a page, compacted at revision 4; behind it the SHA-256.
const ETCD: &[u8] = include_bytes!("golden/etcd-3.7.3.snap");

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;
type Refused = Error<std::convert::Infallible>;

/// Everything in a file, bucket by bucket.
fn read(bytes: &[u8]) -> Result<Vec<(Vec<u8>, Pairs)>, Refused> {
    let mut db = Db::open(bytes)?;
    let mut names = Walk::new(&db.buckets());
    let mut all = Vec::new();
    while let Some((name, bucket)) = names.next_bucket(&mut db)? {
        let (mut walk, mut pairs) = (Walk::new(&bucket), Vec::new());
        while let Some((key, value)) = walk.next(&mut db)? {
            pairs.push((key.to_vec(), value.to_vec()));
        }
        all.push((name, pairs));
    }
    Ok(all)
}

fn write(buckets: &[(Vec<u8>, Pairs)]) -> Vec<u8> {
    let mut none = Vec::new();
    let mut counting = Writer::counting();
    for (name, pairs) in buckets {
        for (key, value) in pairs {
            counting.put(&Hollow(key.len()), &Hollow(value.len()), &mut none);
        }
        counting.end_bucket(name, &mut none);
    }
    let total = counting.finish(&mut none);
    assert!(none.is_empty());
    let mut out = Vec::new();
    let mut writer = Writer::new(total, &mut out);
    for (name, pairs) in buckets {
        for (key, value) in pairs {
            writer.put(&key.as_slice(), &value.as_slice(), &mut out);
        }
        writer.end_bucket(name, &mut out);
    }
    assert_eq!(writer.finish(&mut out), total);
    assert_eq!(total.size(), u64::try_from(out.len()).unwrap());
    out
}

#[test]
fn a_file_of_etcd_is_read_to_its_end() {
    let all = read(&ETCD[..ETCD.len() - 32]).unwrap();
    let names: Vec<&str> = all.iter().map(|(name, _)| str::from_utf8(name).unwrap()).collect();
    let expected = [
        "alarm",
        "auth",
        "authRoles",
        "authUsers",
        "cluster",
        "key",
        "lease",
        "members",
        "members_removed",
        "meta",
    ];
    assert_eq!(names, expected);
    let keys = &all[5].1;
    assert_eq!(keys.len(), 48);
    assert_eq!(keys[2].0, b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\0t");
    assert_eq!(keys[4].1.len(), 9_014);
    // With its checksum behind it, too.
    assert_eq!(read(ETCD).unwrap(), all);
}

#[test]
fn what_is_written_is_read_back() {
    for count in [0_u32, 1, 2, 119, 120, 121, 5_000, 40_000] {
        let key = |index: u32| format!("{index:017}").into_bytes();
        let size = |index: u32| match index % 97 {
            0 => 9_000,
            1 => 0,
            2 => PAGE_SIZE - 16 - 16 - 17,
            other => usize::try_from(other).unwrap(),
        };
        let pairs = (0..count).map(|index| (key(index), vec![7; size(index)])).collect();
        let few = vec![(b"k".to_vec(), b"v".to_vec())];
        let buckets =
            vec![(b"a".to_vec(), Vec::new()), (b"key".to_vec(), pairs), (b"z".to_vec(), few)];
        assert_eq!(read(&write(&buckets)), Ok(buckets), "{count} keys");
    }
}

#[test]
fn damaged_and_cut_files_are_refused_or_read_to_an_end() {
    let key = |index: u32| format!("{index:05}").into_bytes();
    let pairs = (0..700).map(|index| (key(index), vec![1; 100])).collect();
    let made = write(&[(b"key".to_vec(), pairs)]);
    for original in [made.as_slice(), &ETCD[..ETCD.len() - 32]] {
        for size in (0..original.len()).step_by(61) {
            assert!(read(&original[..size]).is_err(), "cut to {size}");
        }
        let mut bytes = original.to_vec();
        for place in 0..bytes.len() {
            // Headers and elements all, contents here and there.
            if place % PAGE_SIZE > 600 && place % 13 != 0 {
                continue;
            }
            for change in [0x01, 0x80, 0xff] {
                bytes[place] ^= change;
                drop(read(&bytes));
                bytes[place] ^= change;
            }
        }
    }
}

#[test]
fn a_page_that_leads_to_itself_is_refused() {
    let key = |index: u32| format!("{index:05}").into_bytes();
    let pairs = (0..200).map(|index| (key(index), vec![1; 100])).collect();
    let mut bytes = write(&[(b"key".to_vec(), pairs)]);
    let pages = bytes.len() / PAGE_SIZE;
    // The last but one is the root of the bucket: its second child becomes itself, or its first child.
    let root = pages - 2;
    let child = root * PAGE_SIZE + 16 + 16 + 8;
    bytes[child..child + 8].copy_from_slice(&u64::try_from(root).unwrap().to_le_bytes());
    assert!(matches!(read(&bytes), Err(Error::Page { problem: Problem::Order, .. })));
    let child = root * PAGE_SIZE + 16 + 8;
    bytes[child..child + 8].copy_from_slice(&u64::try_from(root).unwrap().to_le_bytes());
    assert!(matches!(read(&bytes), Err(Error::Page { problem: Problem::Depth, .. })));
}

#[test]
fn what_is_wrong_is_said() {
    assert_eq!(read(b"no database at all").unwrap_err(), Error::NotBbolt);
    assert_eq!(read(&[0; 9_000]).unwrap_err(), Error::NotBbolt);
    let mut bytes = write(&[(b"key".to_vec(), vec![(b"a".to_vec(), b"b".to_vec())])]);
    let size = u64::try_from(bytes.len()).unwrap();
    let cut = Error::Truncated { size: size - 1, wanted: size };
    assert_eq!(read(&bytes[..bytes.len() - 1]).unwrap_err(), cut);
    // One meta page is enough.
    bytes[40] ^= 1;
    assert_eq!(read(&bytes).unwrap().len(), 1);
    bytes[PAGE_SIZE + 40] ^= 1;
    assert_eq!(read(&bytes).unwrap_err(), Error::Meta);
}
