//! A defect in a guard costs one request, not the process.
#![cfg(debug_assertions)] // Release builds can't be made to panic.

mod common;

use common::{Ask, BOTH, Upstream, assert_refused, gate_with};

/// A panic would close the connection without a word, or take every other request with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_a_500_and_the_process_lives() {
    let upstream = Upstream::ok().await;
    let gate = gate_with(upstream.address(), "", |settings| settings.inject_panic_on_path("/panic"));
    for via in BOTH {
        for ask in [Ask::get("/panic"), Ask::post("/panic", r#"{"message":"a"}"#)] {
            assert_refused(&gate.ask(via, &ask).await, 500, "internal_error");
        }
        assert_eq!(gate.ask(via, &Ask::chat()).await.status, 200);
    }
    assert_eq!(upstream.requests().len(), 2);
    let metrics = gate.admin_ask(&Ask::get("/metrics")).await.text();
    assert!(metrics.contains("tidegate_panics_total 4"), "{metrics}");
}
