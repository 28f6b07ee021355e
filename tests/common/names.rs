//! A name server of a test's own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;

use super::within;

/// A name server that says what a test wants: addresses, or that there is no such name.
pub struct NameServer {
    pub address: SocketAddr,
    answers: Arc<Mutex<Vec<Ipv4Addr>>>,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    pub async fn start(time_to_live: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        let address = socket.local_addr().expect("bound");
        let (answers, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (said, count) = (answers.clone(), asked.clone());
        tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                let answers = said.lock().expect("no panic").clone();
                let reply = reply(&query[..length], &answers, time_to_live);
                count.fetch_add(1, Ordering::SeqCst);
                socket.send_to(&reply, from).await.expect("sent");
            }
        });
        Self { address, answers, asked }
    }

    pub fn say(&self, answers: &[Ipv4Addr]) {
        *self.answers.lock().expect("no panic") = answers.to_vec();
    }

    /// Questions so far; each look-up asks two, one for each family.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until it was asked again, for both families, since now.
    pub async fn asked_again(&self) {
        let before = self.asked();
        within("the name is looked up again", async {
            while self.asked() < before + 4 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// An answer of RFC 1035 §4 to a query with one question; no addresses: there is no such name.
fn reply(query: &[u8], answers: &[Ipv4Addr], time_to_live: u32) -> Vec<u8> {
    let name = query[12..].iter().position(|byte| *byte == 0).expect("a name ends");
    let question = &query[12..12 + name + 5];
    let is_a = question[name + 1..name + 3] == [0, 1];
    let answers = if is_a { answers } else { &[] };
    let code = u8::from(is_a && answers.is_empty()) * 3;
    let mut reply = [&query[..2], &[0x81, 0x80 | code, 0, 1, 0, answers.len() as u8, 0, 0, 0, 0]].concat();
    reply.extend_from_slice(question);
    for address in answers {
        reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        reply.extend_from_slice(&time_to_live.to_be_bytes());
        reply.extend_from_slice(&[0, 4]);
        reply.extend_from_slice(&address.octets());
    }
    reply
}
