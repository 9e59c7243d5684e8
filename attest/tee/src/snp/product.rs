//! AMD's products, the two kinds of keys that sign reports, and the authorities
//! above them as AMD publishes them (`kdsintf.amd.com`, `cert_chain`).

/// A generation of processors with SEV-SNP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Product {
    Milan,
    Genoa,
    Turin,
}

impl Product {
    pub(super) const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// By CPUID's family and model, each with its extension (AMD 57230, section 1.1).
    pub(super) fn of(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x11) => Some(Self::Turin),
            _ => None,
        }
    }

    /// As it stands in names of endorsements.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Milan => "milan",
            Self::Genoa => "genoa",
            Self::Turin => "turin",
        }
    }

    /// As it stands in certificates.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }
}

/// A kind of key that signs reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// The chip's own.
    Vcek,
    /// One that AMD gives to a cloud provider for its chips.
    Vlek,
}

impl Key {
    /// As it stands in names of endorsements.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vcek => "vcek",
            Self::Vlek => "vlek",
        }
    }

    /// How its certificate is named in refusals.
    pub(super) fn certificate_name(self) -> &'static str {
        match self {
            Self::Vcek => "AMD VCEK certificate",
            Self::Vlek => "AMD VLEK certificate",
        }
    }

    /// The start of the common name of the authority above it.
    pub(super) fn authority_prefix(self) -> &'static str {
        match self {
            Self::Vcek => "SEV-",
            Self::Vlek => "SEV-VLEK-",
        }
    }

    /// The GUID of its certificate in a host's table (GHCB 2.03, section 4.1.8.1),
    /// in the byte order of RFC 4122.
    pub(super) fn table_guid(self) -> [u8; 16] {
        match self {
            Self::Vcek => [
                0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8,
                0xac, 0xcd,
            ],
            Self::Vlek => [
                0xa8, 0x07, 0x4b, 0xc2, 0xa2, 0x5a, 0x48, 0x3e, 0xaa, 0xe6, 0x39, 0xc0, 0x45, 0xa0,
                0xb8, 0xa1,
            ],
        }
    }
}

/// DER of the authorities of one product.
#[derive(Clone)]
pub(super) struct Authorities {
    /// The root (ARK). Nothing replaces it.
    pub(super) root: Vec<u8>,
    /// The authority of the chips' keys (ASK).
    pub(super) vcek: Vec<u8>,
    /// The authority of the loaded keys (ASVK).
    pub(super) vlek: Vec<u8>,
}

impl Authorities {
    /// Those of AMD.
    pub(super) fn genuine(product: Product) -> Self {
        let [root, vcek, vlek]: [&[u8]; 3] = match product {
            Product::Milan => [
                include_bytes!("roots/ark_milan.der"),
                include_bytes!("roots/ask_milan.der"),
                include_bytes!("roots/asvk_milan.der"),
            ],
            Product::Genoa => [
                include_bytes!("roots/ark_genoa.der"),
                include_bytes!("roots/ask_genoa.der"),
                include_bytes!("roots/asvk_genoa.der"),
            ],
            Product::Turin => [
                include_bytes!("roots/ark_turin.der"),
                include_bytes!("roots/ask_turin.der"),
                include_bytes!("roots/asvk_turin.der"),
            ],
        };
        Self {
            root: root.to_vec(),
            vcek: vcek.to_vec(),
            vlek: vlek.to_vec(),
        }
    }

    /// The authority of `key`.
    pub(super) fn intermediate(&self, key: Key) -> &[u8] {
        match key {
            Key::Vcek => &self.vcek,
            Key::Vlek => &self.vlek,
        }
    }
}
