//! Crash safety of the whole server.
mod process;
#[test]
fn smoke() {
    let dir = process::DataDir::new("smoke");
    let s = process::Server::start(dir.path(), process::SMALL);
    s.client().put(&wire::Put::new(b"a", b"b")).unwrap();
    let (e, t) = s.stop(process::Signal::TERM);
    eprintln!("{e:?} {t:?}");
    eprintln!("{}", process::check_clean(dir.path()));
}
