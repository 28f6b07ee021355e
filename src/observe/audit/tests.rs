use super::*;
use crate::state::ManualClock;

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-audit-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn rows(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.join(ROWS)).expect("rows");
        text.lines().map(str::to_owned).collect()
    }

    fn put(&self, rows: &[String]) {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        fs::write(self.0.join(ROWS), text).expect("written");
    }

    fn verified(&self) -> Result<Chain, String> {
        read(&self.0, |_| ()).map_err(|why| why.to_string())
    }

    fn all(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        read(&self.0, |row| rows.push(row)).expect("a chain");
        rows
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn hand() -> ManualClock {
    ManualClock::new(Timestamp::from_micros(1_790_000_000_000_000))
}

fn act(subject: &str) -> Act {
    let by = Actor { address: Some([127, 0, 0, 1].into()), token: Some("0badcafe".into()) };
    Act { by, act: "ban", subject: Some(subject.into()), asked: json!({ "for": "1h" }) }
}

fn done(audit: &Audit, subject: &str) {
    let act = act(subject);
    let began = audit.begin(&act).expect("begun");
    audit.end(&act, began, &Outcome::Done(Value::Null, json!({ "level": 1 }))).expect("ended");
}

/// After an incident somebody asks who did what, when, and whether that is all.
#[test]
fn an_act_is_told_before_and_after_with_whoever_did_it() {
    let (directory, hand) = (Directory::new("told"), hand());
    let audit = Audit::new(Some(&directory.0), hand.clock());
    audit.open().expect("opens");
    done(&audit, "198.51.100.7");
    let refused = act("10.0.0.1");
    let began = audit.begin(&refused).expect("begun");
    audit.end(&refused, began, &Outcome::Refused("a trusted proxy".into())).expect("ended");
    let rows = directory.all();
    let told: Vec<_> = rows.iter().map(|row| (row.row, &*row.outcome, row.of)).collect();
    assert_eq!(
        told,
        [
            (1, "done", None),
            (2, "begun", None),
            (3, "done", Some(2)),
            (4, "begun", None),
            (5, "refused", Some(4))
        ]
    );
    let row = &rows[2];
    assert_eq!((row.address.as_deref(), row.token.as_deref()), (Some("127.0.0.1"), Some("0badcafe")));
    assert_eq!((row.subject.as_deref(), &row.after), (Some("198.51.100.7"), &json!({ "level": 1 })));
    assert_eq!((row.at(), rows[4].detail.as_deref()), (Some(hand.clock().now()), Some("a trusted proxy")));
    let mode = fs::metadata(directory.0.join(ROWS)).expect("a file").mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(directory.verified().expect("sound").head.map(|head| head.row), Some(5));
    done(&Audit::new(Some(&directory.0), hand.clock()), "198.51.100.8");
    assert_eq!(directory.verified().expect("sound").rows, 7, "another process goes on");
}

/// Whoever tampers with a row must be found out, and which row it was.
#[test]
fn whatever_is_changed_is_found_and_named() {
    let (directory, hand) = (Directory::new("changed"), hand());
    let audit = Audit::new(Some(&directory.0), hand.clock());
    (0..4).for_each(|n| done(&audit, &format!("198.51.100.{n}")));
    let sound = directory.rows();
    assert_eq!(sound.len(), 9);
    let found = |change: &dyn Fn(&mut Vec<String>)| {
        let mut rows = sound.clone();
        change(&mut rows);
        directory.put(&rows);
        directory.verified().expect_err("found")
    };
    assert!(
        found(&|rows| rows[4] = rows[4].replace("198.51.100.1", "198.51.100.9"))
            .contains("row 5 was changed")
    );
    assert!(found(&|rows| rows[4] = "nothing".into()).contains("row 5 was changed"));
    assert_eq!(found(&|rows| drop(rows.remove(4))), "row 5 is missing");
    assert_eq!(found(&|rows| drop(rows.drain(2..5))), "rows 3 to 5 are missing");
    assert_eq!(found(&|rows| drop(rows.drain(..2))), "rows 1 to 2 are missing");
    assert_eq!(found(&|rows| rows.swap(3, 4)), "row 4 is missing");
    assert_eq!(found(&|rows| rows.insert(4, rows[2].clone())), "row 3 stands where row 5 should");
    assert_eq!(found(&|rows| drop(rows.pop())), "row 9 is missing");
    assert_eq!(found(&|rows| rows.truncate(6)), "rows 7 to 9 are missing");
    assert_eq!(found(&|rows| rows.clear()), "rows 1 to 9 are missing");
    let forged = |rows: &mut Vec<String>| {
        let mut row = Row::read(rows[8].as_bytes()).expect("a row");
        row.subject = Some("198.51.100.99".into());
        rows[8] = row.line().expect("JSON").trim_end().into();
    };
    assert_eq!(found(&forged), "row 9 is not the one that audit.head tells of");
    let began_anew = |rows: &mut Vec<String>| {
        let anchor = Row { row: 5, act: ANCHOR.into(), prev: NONE.into(), ..Row::default() };
        let hash = Row::read(rows[4].as_bytes()).expect("a row").hash;
        let mut anchor = Row { after: json!({ "hash": hash }), ..anchor };
        rows.drain(..5);
        rows.insert(0, anchor.line().expect("JSON").trim_end().into());
    };
    assert_eq!(found(&began_anew), "rows 1 to 5 are missing", "an anchor that no cut tells of");
    fs::remove_file(directory.0.join(ROWS)).expect("removed");
    assert_eq!(directory.verified().expect_err("found"), "audit.jsonl is missing");
    directory.put(&sound);
    assert!(directory.verified().is_ok());
    fs::remove_file(directory.0.join(HEAD)).expect("removed");
    assert_eq!(directory.verified().expect_err("found"), "audit.head is missing");
}

/// To add to an audit that somebody has changed would bury the change.
#[test]
fn nothing_is_added_to_a_broken_audit() {
    let (directory, hand) = (Directory::new("broken"), hand());
    let audit = Audit::new(Some(&directory.0), hand.clock());
    done(&audit, "198.51.100.1");
    let sound = directory.rows();
    directory.put(&sound[..2]);
    let why = audit.begin(&act("198.51.100.2")).expect_err("broken").to_string();
    assert!(why.contains("row 3 is missing") && why.contains("audit verify"), "{why}");
    assert!(Audit::new(Some(&directory.0), hand.clock()).open().is_err());
    directory.put(&sound);
    done(&audit, "198.51.100.2");
    assert_eq!(directory.verified().expect("sound").rows, 5);

    let blocked = Directory::new("blocked");
    fs::write(&blocked.0, "a file where a directory is wanted").expect("written");
    let refused = Audit::new(Some(&blocked.0), hand.clock()).begin(&act("198.51.100.2"));
    assert!(matches!(refused, Err(AuditError::Io(..))));
    let _ = fs::remove_file(&blocked.0);
}

/// `kill -9` at any byte of a row must cost that row at most.
#[test]
fn a_row_that_was_torn_off_is_dropped_and_the_next_follows() {
    let (directory, hand) = (Directory::new("torn"), hand());
    let audit = Audit::new(Some(&directory.0), hand.clock());
    done(&audit, "198.51.100.1");
    let (before, head) = (directory.rows(), fs::read(directory.0.join(HEAD)).expect("a head"));
    done(&audit, "198.51.100.2");
    let row = directory.rows()[3].clone() + "\n";
    for length in (0..row.len()).step_by(37).chain([row.len() - 1, row.len()]) {
        directory.put(&before);
        fs::write(directory.0.join(HEAD), &head).expect("written");
        let mut file = OpenOptions::new().append(true).open(directory.0.join(ROWS)).expect("opens");
        file.write_all(&row.as_bytes()[..length]).expect("written");
        let whole = if length == row.len() { 4 } else { 3 };
        let chain = directory.verified().expect("sound up to the last whole row");
        assert_eq!((chain.rows, chain.torn), (whole, length > 0 && whole == 3), "{length}");
        let next = Audit::new(Some(&directory.0), hand.clock());
        next.open().expect("goes on");
        done(&next, "198.51.100.3");
        let chain = directory.verified().expect("sound");
        assert_eq!((chain.rows, chain.torn), (whole + 2, false));
    }
}

/// A row must not be kept longer than is allowed, and what is left must still prove itself.
#[test]
fn old_rows_are_cut_off_and_the_rest_verifies() {
    let (directory, hand) = (Directory::new("cut"), hand());
    let audit = Audit::new(Some(&directory.0), hand.clock());
    done(&audit, "198.51.100.1");
    hand.advance(20 * DAY);
    done(&audit, "198.51.100.2");
    audit.trim(30 * DAY).expect("nothing to do");
    assert_eq!(directory.all().len(), 5);
    for (days, oldest) in [(12, 4), (20, 6)] {
        hand.advance(days * DAY);
        audit.trim(30 * DAY).expect("cut");
        let chain = directory.verified().expect("sound");
        assert_eq!(chain.cut_at, Some(oldest));
        assert!(!directory.rows().concat().contains("198.51.100.1"));
        done(&audit, "198.51.100.3");
    }
    let mut rows = directory.rows();
    assert!(!rows.concat().contains("198.51.100.2"));
    let last = directory.all().last().map(|row| row.row);
    assert_eq!(last, Some(11));
    rows.remove(1);
    directory.put(&rows);
    assert_eq!(directory.verified().expect_err("found"), "row 6 is missing");
}

/// Whoever guesses tokens must not fill the disk with it, nor what an operator pastes be found in the audit.
#[test]
fn guesses_are_bounded_and_secrets_are_not_kept() {
    let (directory, hand) = (Directory::new("guesses"), hand());
    let audit = Audit::new(Some(&directory.0), hand.clock());
    for _ in 0..200 {
        audit.token_refused(&Actor::default(), "/metrics").expect("written or counted");
    }
    assert_eq!(directory.all().len(), 61);
    hand.advance(HOUR);
    audit.token_refused(&Actor::default(), "/metrics").expect("written");
    assert_eq!(
        directory.all().last().map(|row| row.asked["more_since_the_last_row"].clone()),
        Some(140.into())
    );
    let pasted =
        Act { asked: json!({ "reason": "leaked sk-proj-abcdefghijklmnopqrstuvwxyz0123456789" }), ..act("x") };
    let _ = audit.begin(&pasted).expect("begun");
    assert!(!directory.rows().concat().contains("abcdefghijklmnop"));
}
