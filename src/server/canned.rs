//! Answers given before any request is known, whole and ready: to a head that can't be parsed, and at a full door.

use std::io::Write;

macro_rules! answer {
    ($status:literal, $reason:literal, $more:literal, $length:literal, $body:literal) => {
        concat!(
            "HTTP/1.1 ",
            $status,
            "\r\nContent-Type: application/problem+json\r\nContent-Length: ",
            $length,
            "\r\nCache-Control: no-store\r\nX-Tidegate-Reason: ",
            $reason,
            "\r\n",
            $more,
            "X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n",
            "Referrer-Policy: strict-origin-when-cross-origin\r\nX-XSS-Protection: 1; mode=block\r\n",
            "Content-Security-Policy: default-src 'self'\r\nCross-Origin-Resource-Policy: same-origin\r\n",
            "Connection: close\r\n\r\n",
            $body
        )
        .as_bytes()
    };
}

/// To a head that can't be parsed.
pub const UNPARSED: &[u8] = answer!(
    "400 Bad Request",
    "malformed_request",
    "",
    "137",
    "{\"type\":\"about:blank\",\"title\":\"Bad Request\",\"status\":400,\
     \"detail\":\"The request head is not HTTP (RFC 9112).\",\"code\":\"malformed_request\"}\n"
);

/// To a client for whom there is no connection left.
pub const BUSY: &[u8] = answer!(
    "503 Service Unavailable",
    "too_many_connections",
    "Retry-After: 1\r\n",
    "188",
    "{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
     \"detail\":\"Too many connections are open (set by connections.max, connections.per_address).\",\
     \"code\":\"too_many_connections\"}\n"
);

/// To a client that is banned for so many seconds.
pub fn banned(seconds: u64) -> Vec<u8> {
    let body = "{\"type\":\"about:blank\",\"title\":\"Forbidden\",\"status\":403,\
                \"detail\":\"Too many requests of this caller were refused; it is not served for a while (set by bans).\",\
                \"code\":\"banned\"}\n";
    let mut answer = BANNED_HEAD.to_vec();
    // Writing to a vector can't fail.
    let _ = write!(answer, "Content-Length: {}\r\nRetry-After: {seconds}\r\n\r\n{body}", body.len());
    answer
}

const BANNED_HEAD: &[u8] = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/problem+json\r\n\
    Cache-Control: no-store\r\nX-Tidegate-Reason: banned\r\n\
    X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nConnection: close\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Reason;

    /// A wrong length makes the client wait for bytes that never come, or miss some.
    #[test]
    fn canned_answers_are_whole() {
        let banned = banned(900);
        for (answer, reason) in [
            (UNPARSED, Reason::MalformedRequest),
            (BUSY, Reason::TooManyConnections),
            (&banned, Reason::Banned),
        ] {
            let (head, body) =
                std::str::from_utf8(answer).expect("text").split_once("\r\n\r\n").expect("head");
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
            assert!(head.contains(&format!("X-Tidegate-Reason: {}\r\n", reason.code())));
            assert!(head.starts_with(&format!("HTTP/1.1 {}", reason.status())));
            let body: serde_json::Value = serde_json::from_str(body).expect("json");
            assert_eq!(body["code"], reason.code());
            assert_eq!(body["status"], reason.status().as_u16());
        }
    }
}
