//! Log rotation, in a process of its own: the signal is the process's.

mod common;

use std::process::Command;

use common::{Ask, Scratch, Upstream, Via, gate, within};

/// Until SIGUSR1 (10) is caught it would end the process.
async fn caught() {
    within("a handler of SIGUSR1", async {
        loop {
            let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
            if u64::from_str_radix(mask.trim(), 16).expect("hex") & (1 << 9) != 0 {
                return;
            }
            common::a_moment().await;
        }
    })
    .await;
}

async fn written(path: &std::path::Path, lines: usize) -> String {
    within(&format!("{lines} lines in {}", path.display()), async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if text.lines().count() >= lines {
                return text;
            }
            common::a_moment().await;
        }
    })
    .await
}

/// Without it, logrotate's renamed file grows on, and the new one stays empty.
#[tokio::test(flavor = "multi_thread")]
async fn logs_are_opened_anew_on_a_signal_and_no_line_is_lost() {
    let scratch = Scratch::new();
    let (access, events) = (scratch.path("a.log"), scratch.path("e.log"));
    let log = format!(
        "log: {{access: {{to: '{}', format: '$status $uri'}}, events: {{to: '{}'}}}}\n",
        access.display(),
        events.display()
    );
    let upstream = Upstream::ok().await;
    let gate = gate(upstream.address(), &log);
    caught().await;
    let refused = |name: &str| Ask::get(format!("/{name}")).host("evil.example");
    for round in 0..3 {
        gate.ask(Via::H1, &refused("before")).await;
        written(&access, 1).await;
        for path in [&access, &events] {
            std::fs::rename(path, path.with_extension(round.to_string())).expect("renames");
        }
        // Behind the rename and before the signal: to the old file.
        gate.ask(Via::H1, &refused("between")).await;
        written(&access.with_extension(round.to_string()), 2).await;
        let signal = Command::new("kill").args(["-USR1", &std::process::id().to_string()]).status();
        assert!(signal.expect("kill runs").success());
        within("the new files", async {
            while !access.exists() || !events.exists() {
                common::a_moment().await;
            }
        })
        .await;
        assert_eq!(written(&events.with_extension(round.to_string()), 2).await.lines().count(), 2);
        let old = written(&access.with_extension(round.to_string()), 2).await;
        assert_eq!(old, "421 /before\n421 /between\n");
    }
    gate.ask(Via::H1, &refused("after")).await;
    assert_eq!(written(&access, 1).await, "421 /after\n");
}
