//! TLS towards servers: whom to believe, said once for both carriages.
//!
//! Without a CA file the roots are the system's, as `SSL_CERT_FILE` and `SSL_CERT_DIR` or the usual places have them:
//! Pingora loads the same ones for the passthrough.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use pingora::protocols::ALPN;
use pingora::protocols::tls::CaType;
use pingora::tls::{ClientTlsStream, TlsConnector, load_platform_certs_incl_env_into_store};
use pingora::upstreams::peer::PeerOptions;
use pingora::utils::tls::WrappedX509;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use x509_parser::parse_x509_certificate;

/// Whom to believe, as written and read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Whether certificates are verified at all.
    pub verify: bool,
    /// Certificates of the authorities that are believed instead of the system's.
    pub ca: Option<Vec<CertificateDer<'static>>>,
}

/// Opens TLS on connections to one server.
pub struct Tls {
    /// Asked for in the handshake, and what the certificate has to be for. Never empty: Pingora takes that for leave to
    /// verify nothing.
    server_name: Box<str>,
    verify: bool,
    name: ServerName<'static>,
    connector: TlsConnector,
    /// The same CA as Pingora wants it.
    ca: Option<Arc<CaType>>,
}

impl Trust {
    /// Reads what is to be believed; `ca` is a PEM file.
    ///
    /// # Errors
    /// Why the file can't be used.
    pub fn read(verify: bool, ca: Option<&Path>) -> Result<Self, String> {
        let read = |path: &Path| {
            let unreadable = |why: &dyn fmt::Display| format!("{} can't be read: {why}", path.display());
            let certificates = CertificateDer::pem_file_iter(path)
                .map_err(|error| unreadable(&error))?
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| unreadable(&error))?;
            if certificates.is_empty() {
                return Err(format!("{} holds no certificate in PEM", path.display()));
            }
            Ok(certificates)
        };
        Ok(Self { verify, ca: ca.map(read).transpose()? })
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(certificates) => {
                for certificate in certificates {
                    let added = roots.add(certificate.clone());
                    added.map_err(|error| format!("the CA's certificate can't be used: {error}"))?;
                }
            }
            None => {
                load_platform_certs_incl_env_into_store(&mut roots).map_err(|error| error.to_string())?;
                if roots.is_empty() {
                    return Err("this system has no CA certificates to verify with; install \
                                ca-certificates, set SSL_CERT_FILE, or name a file in tls.ca"
                        .to_owned());
                }
            }
        }
        Ok(roots)
    }
}

impl Tls {
    /// For connections to `server_name`, a name or an address.
    ///
    /// # Errors
    /// Why no certificate could be verified.
    pub fn build(trust: &Trust, server_name: &str) -> Result<Self, String> {
        let name = ServerName::try_from(server_name.to_owned());
        let name = name.map_err(|_| format!("{server_name:?} is no name that a certificate could be for"))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = if trust.verify {
            builder.with_root_certificates(trust.roots()?).with_no_client_auth()
        } else {
            let anyone = Arc::new(Anyone(provider));
            builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth()
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let ca =
            trust.ca.as_ref().map(|certificates| certificates.iter().map(parsed).collect()).transpose()?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { server_name: server_name.into(), verify: trust.verify, name, connector, ca })
    }

    /// The handshake.
    ///
    /// # Errors
    /// What the other side says, or what is wrong with its certificate.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<ClientTlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), stream).await
    }

    /// Name for the handshake, as Pingora wants it.
    pub fn server_name(&self) -> &str {
        &self.server_name
    }

    /// The same trust for Pingora's connections.
    pub fn apply(&self, options: &mut PeerOptions) {
        options.alpn = ALPN::H1;
        options.verify_cert = self.verify;
        options.verify_hostname = self.verify;
        options.ca = self.ca.clone();
    }
}

/// A certificate as Pingora wants it.
fn parsed(der: &CertificateDer<'static>) -> Result<WrappedX509, String> {
    WrappedX509::try_new(der.to_vec(), |der| parse_x509_certificate(der).map(|(_, certificate)| certificate))
        .map_err(|error| format!("the CA's certificate can't be used: {error}"))
}

/// Verifies that the other side has the key of its certificate, and nothing else: for `tls.verify: false`.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
