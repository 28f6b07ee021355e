//! What was found in a text, as a small set of stable words for events, metrics and `explain`.

/// One kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An element that runs, loads or swallows something, or a comment or declaration.
    Markup,
    /// An `on…` attribute.
    Handler,
    /// A URL whose scheme runs script.
    Url,
    /// A control character: C0 but tab, line feed and carriage return; DEL; C1.
    Control,
    /// A zero-width character where no script or emoji needs it.
    ZeroWidth,
    /// A bidirectional embedding, override or isolate.
    Bidi,
    /// A Unicode tag character outside an emoji flag.
    Tag,
}

impl Kind {
    /// Every kind, in the order of [`Kinds::iter`].
    pub const ALL: [Self; 7] =
        [Self::Markup, Self::Handler, Self::Url, Self::Control, Self::ZeroWidth, Self::Bidi, Self::Tag];

    /// The word that events and metric labels use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Markup => "markup",
            Self::Handler => "handler",
            Self::Url => "url",
            Self::Control => "control",
            Self::ZeroWidth => "zero_width",
            Self::Bidi => "bidi",
            Self::Tag => "tag",
        }
    }
}

/// A set of [`Kind`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// Adds a kind.
    pub fn insert(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u8;
    }

    /// Adds every kind of another set.
    pub fn extend(&mut self, others: Self) {
        self.0 |= others.0;
    }

    /// Whether a kind was found.
    pub fn contains(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    /// Whether nothing was found.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether something was found that a browser would run, load or follow: what `reject` refuses.
    pub fn is_active(self) -> bool {
        [Kind::Markup, Kind::Handler, Kind::Url].into_iter().any(|kind| self.contains(kind))
    }

    /// The kinds found.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }

    /// Their words.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.iter().map(Kind::name)
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        let mut set = Self::default();
        kinds.into_iter().for_each(|kind| set.insert(kind));
        set
    }
}
