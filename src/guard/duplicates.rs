//! Messages that come twice (D1), and calls that are repeated under one `Idempotency-Key` (D2): served once, charged once.
//!
//! What names a message is claimed before the upstream hears of it, together with everything else that the request takes.
//! Only the same caller's next try meets the claim; one whose answer was an error, or never came, frees it.

use std::borrow::Cow;
use std::hash::Hasher;
use std::time::Duration;

use http::header::{COOKIE, HeaderName};
use schemars::JsonSchema;
use serde::Deserialize;
use siphasher::sip128::{Hasher128, SipHasher24};
use smallvec::SmallVec;

use super::json::{self, FieldRules, Rule};
use super::{Fault, Head, Reason, Refusal};
use crate::config::{ByteSize, Span};
use crate::proxy::api::Api;
use crate::proxy::client::ClientRules;
use crate::state::Subject;
use crate::state::claim::{Claim, ClaimKey, Holder};

/// Messages that come twice, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long a message is remembered.
    pub window: Span,
    /// Fields of JSON and forms that name a message.
    pub fields: Vec<String>,
    /// Header fields that do.
    pub headers: Vec<String>,
    /// Where a message is known by its content.
    pub content: Content,
    /// Fields that do not count as content.
    pub ignore: Vec<String>,
}

/// Where a message is known by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// On webhooks: their senders are programs, and people do say "yes" twice.
    Webhooks,
    /// On every inspected call.
    Always,
    /// Nowhere.
    Never,
}

/// Repeated calls under one key, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdempotencyConfig {
    /// How long a key and its answer are remembered.
    pub window: Span,
    /// The longest answer that is given again.
    pub answer: ByteSize,
}

/// Both, as run.
#[derive(Default)]
pub struct Duplicates {
    messages: Option<Messages>,
    idempotency: Option<Idempotency>,
}

struct Messages {
    keep: Duration,
    headers: Vec<HeaderName>,
    content: Content,
    ignored: FieldRules,
}

#[derive(Clone, Copy)]
struct Idempotency {
    keep: Duration,
    answer: usize,
}

/// A request as this guard sees it.
pub struct Sent<'a> {
    /// Its head.
    pub head: &'a Head<'a>,
    /// Makes the digests.
    pub rules: &'a ClientRules,
    /// API of its path.
    pub api: Option<Api>,
    /// Its body, as far as it was read.
    pub body: &'a [u8],
    /// Whether the body was read whole, and looked into.
    pub inspected: bool,
    /// The id of the message that the body names.
    pub message: Option<&'a str>,
}

/// What a request claims, and by what.
#[derive(Debug, Default)]
pub struct Claims {
    claims: SmallVec<[Claim; 2]>,
    by: SmallVec<[By; 2]>,
    answer: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Key,
    Id,
    Content,
}

/// What the sender of something that is claimed already is told.
#[derive(Debug)]
pub enum Told {
    /// No.
    Refused(Refusal),
    /// The answer to the first try, if it was kept; else the refusal.
    Again(ClaimKey, Refusal),
}

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest key, in bytes.
const KEY_BYTES: usize = 255;

impl Duplicates {
    /// Builds the guard.
    ///
    /// # Errors
    /// Names the key that holds a bad name, a bad path or a window of nothing.
    pub fn build(config: Option<&Config>, idempotency: Option<&IdempotencyConfig>) -> Result<Self, Fault> {
        let lasting = |key: &'static str, window: Span| {
            let window = window.duration();
            if window.is_zero() {
                Err(Fault::new(key, "must be more than 0; or write off"))
            } else {
                Ok(window)
            }
        };
        let messages = |config: &Config| {
            let header = |name: &String| {
                name.parse()
                    .map_err(|_| Fault::new("duplicates.headers", format!("{name:?} is no header name")))
            };
            let ignored = FieldRules::compile(config.ignore.iter().map(|field| Rule::value(field, 0)));
            Ok(Messages {
                keep: lasting("duplicates.window", config.window)?,
                headers: config.headers.iter().map(header).collect::<Result<_, _>>()?,
                content: config.content,
                ignored: ignored.map_err(|why| Fault::new("duplicates.ignore", why.to_string()))?,
            })
        };
        let keys = |config: &IdempotencyConfig| {
            let answer = usize::try_from(config.answer.bytes()).unwrap_or(usize::MAX);
            Ok(Idempotency { keep: lasting("idempotency.window", config.window)?, answer })
        };
        Ok(Self {
            messages: config.map(messages).transpose()?,
            idempotency: idempotency.map(keys).transpose()?,
        })
    }

    /// What a request claims: nothing, if it is safe or has no name.
    ///
    /// # Errors
    /// A key that is none.
    pub fn claims(&self, sent: &Sent<'_>) -> Result<Claims, Refusal> {
        let mut claims = Claims::default();
        if sent.head.method.is_safe() {
            return Ok(claims);
        }
        // First, so that a client which repeats itself by the rules gets its answer rather than a reproach.
        if let Some(Idempotency { keep, answer }) = self.idempotency
            && let Some(key) = idempotency_key(sent.head)?
        {
            let mut content = sent.rules.keyed(b"content");
            for part in
                [sent.head.method.as_str().as_bytes(), sent.head.path.as_bytes(), sent.query(), sent.body]
            {
                field(&mut content, part);
            }
            claims.answer = answer;
            claims.add(By::Key, sent.key(b"idempotency key", key), content.finish128().as_u128(), keep);
        }
        if let Some(messages) = &self.messages {
            messages.add(sent, &mut claims);
        }
        Ok(claims)
    }
}

impl Messages {
    fn add(&self, sent: &Sent<'_>, claims: &mut Claims) {
        let named = |name: &HeaderName| sent.head.headers.get(name).map(http::HeaderValue::as_bytes);
        let id = sent.message.map(str::as_bytes).or_else(|| self.headers.iter().find_map(named));
        if let Some(id) = id.filter(|id| !id.is_empty()) {
            claims.add(By::Id, sent.key(b"message id", id), 0, self.keep);
            return;
        }
        let by_content = match self.content {
            Content::Webhooks => sent.api == Some(Api::Webhook),
            Content::Always => true,
            Content::Never => false,
        };
        if by_content && sent.inspected && !sent.body.is_empty() {
            let key = sent.rules.keyed(b"message");
            let content = json::content(sent.body, &self.ignored, &key).unwrap_or_else(|| {
                let mut hasher = key;
                hasher.write(sent.body);
                hasher.finish128().as_u128()
            });
            claims.add(By::Content, sent.key(b"message content", &content.to_le_bytes()), content, self.keep);
        }
    }
}

impl<'a> Sent<'a> {
    fn query(&self) -> &'a [u8] {
        self.head.query.unwrap_or_default().as_bytes()
    }

    /// The name of something of this caller's. Whoever may be another caller must not meet it: beside user, session and
    /// device, the app's own cookies tell callers behind one address apart.
    pub(super) fn key(&self, what: &[u8], name: &[u8]) -> ClaimKey {
        let client = self.head.client;
        let mut hasher = self.rules.keyed(what);
        hasher.write_u128(client.user.map_or_else(|| Subject::address(client.address).bits(), |user| user.0));
        for id in [client.session, client.device] {
            hasher.write_u128(id.map_or(0, |id| id.0));
        }
        field(&mut hasher, client.tenant.as_bytes());
        for cookies in self.head.headers.get_all(COOKIE) {
            field(&mut hasher, cookies.as_bytes());
        }
        if what != b"idempotency key" {
            field(&mut hasher, self.head.path.as_bytes());
            field(&mut hasher, self.query());
        }
        field(&mut hasher, name);
        ClaimKey(hasher.finish128().as_u128())
    }
}

fn field(hasher: &mut SipHasher24, bytes: &[u8]) {
    hasher.write_usize(bytes.len());
    hasher.write(bytes);
}

/// The key of a call that may be repeated (draft-ietf-httpapi-idempotency-key-header §2), with or without its quotes.
fn idempotency_key<'a>(head: &Head<'a>) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = head.headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.as_bytes().trim_ascii();
    let bare = text.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(text);
    let sound = (1..=KEY_BYTES).contains(&bare.len()) && values.next().is_none();
    if sound {
        return Ok(Some(bare));
    }
    let detail = "Idempotency-Key wants one value of 1 to 255 characters.";
    Err(Refusal::new(Reason::InvalidIdempotencyKey, detail, "idempotency"))
}

impl Claims {
    fn add(&mut self, by: By, key: ClaimKey, content: u128, keep: Duration) {
        self.claims.push(Claim { key, content, keep });
        self.by.push(by);
    }

    /// What the store is asked for.
    pub fn as_slice(&self) -> &[Claim] {
        &self.claims
    }

    /// What the answer is to be kept for, if for anything, and how long it may be.
    pub fn keeps(&self) -> Option<(ClaimKey, usize)> {
        let at = self.by.iter().position(|by| *by == By::Key)?;
        Some((self.claims.get(at)?.key, self.answer))
    }

    /// What the sender is told, whose claim `at` is held by another request.
    pub fn told(&self, at: usize, holder: &Holder) -> Told {
        let by_key = self.by.get(at) == Some(&By::Key);
        let refused = |reason, detail: Cow<'static, str>, setting| Refusal::new(reason, detail, setting);
        if by_key && !holder.same_content {
            let detail = "This Idempotency-Key was used for another request; make a new one for each.";
            return Told::Refused(refused(Reason::IdempotencyKeyReused, detail.into(), "idempotency"));
        }
        let setting = if by_key { "idempotency" } else { "duplicates" };
        if by_key && holder.under_way {
            let detail = "The first request with this Idempotency-Key is still being served.";
            let refusal = refused(Reason::IdempotencyInFlight, detail.into(), setting);
            return Told::Refused(refusal.after(Duration::from_secs(1)));
        }
        let (ago, what) = (holder.age.as_secs(), if holder.under_way { "is being" } else { "was" });
        let detail = format!("The same message came {ago} s ago and {what} served; it is not served again.");
        let duplicate = refused(Reason::Duplicate, detail.into(), setting);
        match self.claims.get(at).filter(|_| by_key) {
            Some(claim) => Told::Again(claim.key, duplicate),
            None => Told::Refused(duplicate),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::guard::testing::{Request, rules};
    use crate::proxy::client::SubjectId;

    fn guard(content: Content) -> Duplicates {
        let config = Config {
            window: Span(Duration::from_secs(600)),
            fields: Vec::new(),
            headers: vec!["x-message-id".into()],
            content,
            ignore: vec!["/ts".into()],
        };
        let idempotency =
            IdempotencyConfig { window: Span(Duration::from_secs(3600)), answer: ByteSize(1024) };
        Duplicates::build(Some(&config), Some(&idempotency)).expect("guard")
    }

    fn claims(request: &Request, api: Option<Api>, body: &str, message: Option<&str>) -> Vec<Claim> {
        let sent = Sent {
            head: &request.head(),
            rules: &rules(),
            api,
            body: body.as_bytes(),
            inspected: true,
            message,
        };
        guard(Content::Webhooks).claims(&sent).expect("sound").as_slice().to_vec()
    }

    fn one(request: &Request, api: Option<Api>, body: &str, message: Option<&str>) -> ClaimKey {
        let claims = claims(request, api, body, message);
        assert_eq!(claims.len(), 1);
        claims[0].key
    }

    /// A person who says "yes" twice must be heard twice; a webhook that is delivered twice must run once.
    #[test]
    fn content_names_a_message_on_webhooks_only() {
        let post = Request::new(Method::POST);
        let webhook = Some(Api::Webhook);
        assert!(claims(&post, Some(Api::Chat), r#"{"message":"yes"}"#, None).is_empty());
        let first = one(&post, webhook, r#"{"text":"on","ts":1}"#, None);
        assert_eq!(first, one(&post, webhook, r#"{ "ts":2, "text":"on" }"#, None));
        assert_ne!(first, one(&post, webhook, r#"{"text":"off","ts":1}"#, None));
        assert!(claims(&Request::new(Method::GET), webhook, "", Some("m1")).is_empty());
        assert_eq!(claims(&post, webhook, "", None).len(), 0, "nothing is no message");
    }

    /// The id counts, whatever else differs: it is what the sender calls its message.
    #[test]
    fn an_id_names_a_message_everywhere() {
        let post = Request::new(Method::POST);
        let first = one(&post, Some(Api::Chat), r#"{"message":"a"}"#, Some("m1"));
        assert_eq!(first, one(&post, Some(Api::Chat), r#"{"message":"b"}"#, Some("m1")));
        assert_ne!(first, one(&post, Some(Api::Chat), r#"{"message":"a"}"#, Some("m2")));
        let by_header = Request::new(Method::POST).with("x-message-id", "m1");
        assert_eq!(first, one(&by_header, Some(Api::Webhook), "{}", None));
    }

    /// Two people must never meet in one claim: one of them would not be heard, or read the other's answer.
    #[test]
    fn callers_never_meet() {
        let claim = |change: &dyn Fn(&mut Request)| {
            let mut request = Request::new(Method::POST).with("idempotency-key", "k1");
            change(&mut request);
            claims(&request, None, "{}", Some("m1")).iter().map(|claim| claim.key).collect::<Vec<_>>()
        };
        let mut all = [
            claim(&|_| {}),
            claim(&|request| request.client.user = Some(SubjectId(1))),
            claim(&|request| request.client.session = Some(SubjectId(1))),
            claim(&|request| request.client.device = Some(SubjectId(1))),
            claim(&|request| request.client.address = [192, 0, 2, 8].into()),
            claim(&|request| request.client.tenant = "other.example".into()),
            claim(&|request| drop(request.headers.insert(COOKIE, "sid=1".parse().expect("value")))),
        ]
        .concat();
        assert_eq!(all.len(), 14);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 14);
    }

    /// A client that repeats itself gets its answer; one that reuses its key for something else must be told.
    #[test]
    fn a_repeated_key_is_told_what_became_of_the_first() {
        let told = |under_way, same_content| {
            let head = Request::new(Method::POST).with("idempotency-key", "\"k1\"");
            let sent = Sent {
                head: &head.head(),
                rules: &rules(),
                api: None,
                body: b"{}",
                inspected: true,
                message: None,
            };
            let claims = guard(Content::Never).claims(&sent).expect("sound");
            assert_eq!(claims.keeps(), Some((claims.as_slice()[0].key, 1024)));
            let (age, free_in) = (Duration::from_secs(3), Duration::from_secs(5));
            match claims.told(0, &Holder { under_way, same_content, age, free_in }) {
                Told::Refused(refusal) => (refusal.reason, false),
                Told::Again(_, refusal) => (refusal.reason, true),
            }
        };
        assert_eq!(told(true, true), (Reason::IdempotencyInFlight, false));
        assert_eq!(told(false, true), (Reason::Duplicate, true));
        assert_eq!(told(true, false), (Reason::IdempotencyKeyReused, false));
        assert_eq!(told(false, false), (Reason::IdempotencyKeyReused, false));
    }

    /// A key that two parsers read differently could meet another's.
    #[test]
    fn keys_are_one_value_of_bounded_length() {
        let key = |request: Request| idempotency_key(&request.head()).map(|key| key.map(<[u8]>::to_vec));
        let with = |value: &str| key(Request::new(Method::POST).with("idempotency-key", value));
        assert_eq!(key(Request::new(Method::POST)), Ok(None));
        assert_eq!(with("\"a b\""), Ok(Some(b"a b".to_vec())));
        for bad in ["", "\"\"", &"x".repeat(256)] {
            assert_eq!(with(bad).expect_err("bad").reason, Reason::InvalidIdempotencyKey);
        }
        let twice = Request::new(Method::POST).with("idempotency-key", "a").with("idempotency-key", "b");
        assert!(key(twice).is_err());
    }
}
