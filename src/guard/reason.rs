//! Reason codes: one stable word per refusal, alike in the answer, the log, the metric and the docs.

use http::StatusCode;

/// The kind of security event a refusal is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A limit or cap on traffic was met.
    RateLimitExceeded,
    /// Something that looks like an attack.
    SecurityAlert,
    /// Bad input.
    ValidationError,
    /// Credentials that are not what they should be.
    AuthFailed,
    /// A message that came before.
    DuplicateBlocked,
    /// A circuit breaker moved, or somebody switched one, or maintenance.
    CircuitBreaker,
    /// Settings were read again.
    ConfigReload,
    /// What happened in the last hour: no refusal's.
    Summary,
    /// An operator did something, or tried to.
    AdminAct,
}

impl Event {
    /// Every event, for metrics and docs,
    /// in the order of their discriminants, which index their counters.
    pub const ALL: [Event; 9] = [
        Event::RateLimitExceeded,
        Event::SecurityAlert,
        Event::ValidationError,
        Event::AuthFailed,
        Event::DuplicateBlocked,
        Event::CircuitBreaker,
        Event::ConfigReload,
        Event::Summary,
        Event::AdminAct,
    ];

    /// The event's name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Event::RateLimitExceeded => "RATE_LIMIT_EXCEEDED",
            Event::SecurityAlert => "SECURITY_ALERT",
            Event::ValidationError => "VALIDATION_ERROR",
            Event::AuthFailed => "AUTH_FAILED",
            Event::DuplicateBlocked => "DUPLICATE_BLOCKED",
            Event::CircuitBreaker => "CIRCUIT_BREAKER",
            Event::ConfigReload => "CONFIG_RELOAD",
            Event::Summary => "SUMMARY",
            Event::AdminAct => "ADMIN_ACT",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $status:ident, $event:expr;)*) => {
        /// Why a request was refused or failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, for metrics and docs.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The stable code.
            pub const fn code(self) -> &'static str {
                match self { $(Reason::$variant => $code,)* }
            }

            /// The HTTP status of the answer.
            pub const fn status(self) -> StatusCode {
                match self { $(Reason::$variant => StatusCode::$status,)* }
            }

            /// The security event it raises; `None` for failures that are nobody's misbehaviour.
            pub const fn event(self) -> Option<Event> {
                match self { $(Reason::$variant => $event,)* }
            }
        }
    };
}

impl Reason {
    /// Whether a client can be blamed for it, and no page could bring it upon its visitor.
    pub fn may_strike(self) -> bool {
        let never = [Self::OriginDenied, Self::HostDenied, Self::Overloaded, Self::TooManyConnections];
        let blamed =
            [Event::RateLimitExceeded, Event::SecurityAlert, Event::ValidationError, Event::AuthFailed];
        // The event of a ban tells that there is one; a refusal because of it is not another fault.
        let new = !matches!(self, Self::Banned | Self::LoginFailed | Self::AdminTokenRefused);
        new && !never.contains(&self) && self.event().is_some_and(|event| blamed.contains(&event))
    }

    /// Whether the upstream did not do its part: it could not be reached, broke off, or took too long.
    pub const fn is_upstreams(self) -> bool {
        matches!(self, Reason::UpstreamUnreachable | Reason::UpstreamFailed | Reason::UpstreamTimeout)
    }
}

use Event::{AuthFailed, DuplicateBlocked, RateLimitExceeded, SecurityAlert, ValidationError};

reasons! {
    /// The request's framing or head breaks HTTP, or two parsers could read it differently.
    MalformedRequest = "malformed_request", BAD_REQUEST, Some(SecurityAlert);
    /// The path can't be normalised safely.
    InvalidPath = "invalid_path", BAD_REQUEST, Some(SecurityAlert);
    /// The host is not one that this gate serves.
    HostDenied = "host_denied", MISDIRECTED_REQUEST, Some(SecurityAlert);
    /// The client's address is denied, or not on the allowlist.
    AddressDenied = "address_denied", FORBIDDEN, Some(SecurityAlert);
    /// A state-changing request or upgrade from a foreign origin.
    OriginDenied = "origin_denied", FORBIDDEN, Some(SecurityAlert);
    /// The method is not allowed here.
    MethodDenied = "method_denied", METHOD_NOT_ALLOWED, Some(ValidationError);
    /// The request target is too long.
    UriTooLong = "uri_too_long", URI_TOO_LONG, Some(ValidationError);
    /// Too many header fields, or too many bytes of them.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, Some(ValidationError);
    /// The body is larger than allowed for its type.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, Some(ValidationError);
    /// The body did not arrive in time.
    BodyTimeout = "body_timeout", REQUEST_TIMEOUT, Some(ValidationError);
    /// A content coding that the gate does not decode.
    UnsupportedEncoding = "unsupported_encoding", UNSUPPORTED_MEDIA_TYPE, Some(ValidationError);
    /// A charset other than UTF-8 on an inspected body.
    UnsupportedCharset = "unsupported_charset", UNSUPPORTED_MEDIA_TYPE, Some(ValidationError);
    /// Not JSON, or JSON that two parsers could read differently, or beyond the shape caps.
    InvalidJson = "invalid_json", BAD_REQUEST, Some(ValidationError);
    /// Not a form, or a form or query that two parsers could read differently, or beyond the shape caps.
    InvalidForm = "invalid_form", BAD_REQUEST, Some(ValidationError);
    /// A text field is longer than allowed.
    TextTooLong = "text_too_long", UNPROCESSABLE_ENTITY, Some(ValidationError);
    /// A multipart body that two parsers could read differently.
    MalformedUpload = "malformed_upload", BAD_REQUEST, Some(SecurityAlert);
    /// A file whose name leaves its directory, or hides what it is.
    UploadNameDenied = "upload_name_denied", BAD_REQUEST, Some(SecurityAlert);
    /// A file of a type that may not be uploaded, or that is another than it says.
    UploadTypeDenied = "upload_type_denied", UNSUPPORTED_MEDIA_TYPE, Some(SecurityAlert);
    /// A part of an upload, or the number of its parts, is larger than allowed.
    UploadTooLarge = "upload_too_large", PAYLOAD_TOO_LARGE, Some(ValidationError);
    /// A text holds what a page would run, and may not or can't be made harmless.
    ThreatDetected = "threat_detected", UNPROCESSABLE_ENTITY, Some(SecurityAlert);
    /// The same message came before, and was served or is being served.
    Duplicate = "duplicate", CONFLICT, Some(DuplicateBlocked);
    /// The first request with the same Idempotency-Key is still being served.
    IdempotencyInFlight = "idempotency_in_flight", CONFLICT, Some(DuplicateBlocked);
    /// The same Idempotency-Key was used for another request.
    IdempotencyKeyReused = "idempotency_key_reused", UNPROCESSABLE_ENTITY, Some(ValidationError);
    /// An Idempotency-Key that is empty, too long, or two.
    InvalidIdempotencyKey = "invalid_idempotency_key", BAD_REQUEST, Some(ValidationError);
    /// The same call came again and again.
    LoopDetected = "loop_detected", TOO_MANY_REQUESTS, Some(RateLimitExceeded);
    /// A rate limit was met.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, Some(RateLimitExceeded);
    /// Too many requests in flight for this subject.
    ConcurrencyLimited = "concurrency_limited", TOO_MANY_REQUESTS, Some(RateLimitExceeded);
    /// Too many streams are open for this subject.
    StreamLimited = "stream_limited", TOO_MANY_REQUESTS, Some(RateLimitExceeded);
    /// Too many connections are open, in total or from this address.
    TooManyConnections = "too_many_connections", SERVICE_UNAVAILABLE, Some(RateLimitExceeded);
    /// The caller is banned. As an event: has just been banned.
    Banned = "banned", FORBIDDEN, Some(SecurityAlert);
    /// The app has refused a login again and again; told as an event only.
    LoginFailed = "login_failed", UNAUTHORIZED, Some(AuthFailed);
    /// A token was presented on the admin port, and it is not the admin token.
    AdminTokenRefused = "admin_token_refused", UNAUTHORIZED, Some(AuthFailed);
    /// Too many requests in flight, or streams open, in total.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, Some(RateLimitExceeded);
    /// The store of limits can't be asked.
    StoreUnavailable = "store_unavailable", SERVICE_UNAVAILABLE, None;
    /// The upstream's circuit breaker is open.
    CircuitOpen = "circuit_open", SERVICE_UNAVAILABLE, None;
    /// The operator has closed the app for a while.
    Maintenance = "maintenance", SERVICE_UNAVAILABLE, None;
    /// No connection to the upstream.
    UpstreamUnreachable = "upstream_unreachable", BAD_GATEWAY, None;
    /// The upstream broke off or answered nonsense.
    UpstreamFailed = "upstream_failed", BAD_GATEWAY, None;
    /// The upstream took too long.
    UpstreamTimeout = "upstream_timeout", GATEWAY_TIMEOUT, None;
    /// The upstream was silent in a stream for too long.
    StreamIdle = "stream_idle", GATEWAY_TIMEOUT, None;
    /// A stream lasted as long as one may.
    StreamTotal = "stream_total", GATEWAY_TIMEOUT, None;
    /// The gate is being stopped.
    Draining = "draining", SERVICE_UNAVAILABLE, None;
    /// A defect in the gate; the request was not served.
    InternalError = "internal_error", INTERNAL_SERVER_ERROR, None;
}
