use std::io;
use std::sync::mpsc;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// A sink that tests can read.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8(locked(&self.0).clone()).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        locked(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Target for Page {}

/// A disk that takes what a test lets it take: each permit is the result of one write.
struct Disk {
    permits: mpsc::Receiver<io::Result<usize>>,
    entered: mpsc::Sender<()>,
    page: Page,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.entered.send(());
        // Once the test is over, the disk is healthy again.
        let taken = self.permits.recv().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
        self.page.write(&bytes[..taken])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Target for Disk {}

struct Bench {
    writer: Writer,
    log: Log,
    dropped: IntCounter,
    page: Page,
    permits: mpsc::Sender<io::Result<usize>>,
    entered: mpsc::Receiver<()>,
}

fn bench() -> Bench {
    let (permits, permitted) = mpsc::channel();
    let (entering, entered) = mpsc::channel();
    let page = Page::default();
    let disk = Disk { permits: permitted, entered: entering, page: page.clone() };
    let dropped = counter();
    let (writer, mut logs) = Writer::start(vec![(Box::new(disk), dropped.clone())]).unwrap();
    Bench { writer, log: logs.remove(0), dropped, page, permits, entered }
}

fn counter() -> IntCounter {
    IntCounter::new("dropped", "Lines.").unwrap()
}

/// Lines of one request thread in the wrong order, or missing, would make the log a puzzle.
#[test]
fn every_line_of_every_thread_is_written_once_and_in_order() {
    let (access, events) = (Page::default(), Page::default());
    let sinks: Vec<(Sink, _)> =
        vec![(Box::new(access.clone()), counter()), (Box::new(events.clone()), counter())];
    let (mut writer, logs) = Writer::start(sinks).unwrap();
    let [access_log, event_log] = &logs[..] else { panic!("two logs") };
    thread::scope(|scope| {
        for thread in 0..12 {
            scope.spawn(move || {
                for line in 0..1000 {
                    access_log.push(format!("{thread} {line:04}\n").as_bytes());
                }
                event_log.push(format!("{thread}\n").as_bytes());
            });
        }
    });
    assert!(writer.close(LIMIT));
    for thread in 0..12 {
        let text = access.text();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(&format!("{thread} "))).collect();
        assert_eq!(lines.len(), 1000);
        assert!(lines.is_sorted());
    }
    assert_eq!(events.text().lines().count(), 12);
}

/// A target that counts how often it was opened anew.
#[derive(Clone, Default)]
struct Book(Arc<Mutex<Vec<String>>>);

impl Write for Book {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pages = locked(&self.0);
        if pages.is_empty() {
            pages.push(String::new());
        }
        pages.last_mut().unwrap().push_str(str::from_utf8(bytes).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Target for Book {
    fn reopen(&mut self) {
        locked(&self.0).push(String::new());
    }
}

/// A line that is lost, or written to a file that is already put away, at each rotation.
#[test]
fn a_rotation_loses_no_line_and_leaves_earlier_ones_behind() {
    let book = Book::default();
    let (mut writer, logs) = Writer::start(vec![(Box::new(book.clone()), counter())]).unwrap();
    for page in 0..20 {
        logs[0].push(format!("{page}\n").as_bytes());
        writer.reopen();
        assert!(writer.flush(LIMIT));
    }
    assert!(writer.close(LIMIT));
    let expected: Vec<_> = (0..20).map(|page| format!("{page}\n")).chain([String::new()]).collect();
    assert_eq!(*locked(&book.0), expected);
}

/// A frozen disk must cost lines, which are counted, and never a request.
#[test]
fn a_stuck_target_costs_counted_lines_and_nobody_waits() {
    let Bench { mut writer, log, dropped, page, permits, entered } = bench();
    let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
    log.push(&line);
    entered.recv_timeout(LIMIT).unwrap();
    // The writer hangs in its first write now; what one thread may queue meanwhile is one buffer.
    let room = SHARD_BYTES / line.len();
    for _ in 0..room + 7 {
        log.push(&line);
    }
    assert_eq!(dropped.get(), 7);
    assert!(!writer.flush(Duration::ZERO));
    drop(permits);
    assert!(writer.close(LIMIT));
    assert_eq!(page.text().lines().count(), 1 + room);
    assert_eq!(dropped.get(), 7);
}

/// A full disk is counted by the line, and the first line after it is whole again.
#[test]
fn a_failed_write_is_counted_and_does_not_spoil_the_next_line() {
    let Bench { mut writer, log, dropped, page, permits, .. } = bench();
    let full = || io::Error::from(ErrorKind::StorageFull);
    for step in [Ok(6), Err(full()), Ok(1), Ok(9)] {
        permits.send(step).unwrap();
    }
    // At once, so that they are one batch however busy the machine is.
    log.push(b"one\ntwo\nthree\n");
    assert!(writer.flush(LIMIT));
    assert_eq!((page.text().as_str(), dropped.get()), ("one\ntw", 2));
    log.push(b"four\n");
    assert!(writer.close(LIMIT));
    assert_eq!((page.text().as_str(), dropped.get()), ("one\ntw\nfour\n", 2));
}

/// A server must stop even if whoever reads its log does not.
#[test]
fn closing_gives_up_on_a_stuck_target() {
    let Bench { mut writer, log, entered, permits, .. } = bench();
    log.push(b"line\n");
    entered.recv_timeout(LIMIT).unwrap();
    assert!(!writer.close(Duration::ZERO));
    drop(permits);
}
