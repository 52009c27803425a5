package exchange

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"
)

// Pin is the SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 section 2.4). The zero Pin pins nothing.
type Pin [sha256.Size]byte

// PinOf gives the pin of a certificate.
func PinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

func (p Pin) String() string { return hex.EncodeToString(p[:]) }

// Peer says which TLS certificate is trusted: the one with the Pin, or one that a CA vouches for under a Name.
type Peer struct {
	Pin  Pin
	CAs  *x509.CertPool
	Name string // DNS name in the certificate, with CAs
}

func (p *Peer) check() error {
	switch pinned := p.Pin != (Pin{}); {
	case pinned && p.CAs != nil:
		return errors.New("peer has both a pin and CAs; give one")
	case !pinned && p.CAs == nil:
		return errors.New("peer has neither a pin nor CAs; nobody would be trusted")
	case p.CAs != nil && p.Name == "":
		return errors.New("peer has CAs but no name; every certificate of theirs would be trusted")
	}
	return nil
}

// verify decides on a certificate chain whose first key the peer has proved to hold. A pinned key is trusted whatever
// its certificate says; dates and usages count with a CA only.
func (p *Peer) verify(chain []*x509.Certificate, usage x509.ExtKeyUsage) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: it sent none", ErrUntrusted)
	}
	if p.CAs == nil {
		if got := PinOf(chain[0]); got != p.Pin {
			return fmt.Errorf("%w: its pin is %v, want %v", ErrUntrusted, got, p.Pin)
		}
		return nil
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: p.CAs, Intermediates: intermediates, DNSName: p.Name, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	return nil
}

// NewIdentity makes a self-signed certificate for the name. A nil key means a new Ed25519 key; any other may be ECDSA
// P-256 or what else TLS 1.3 takes. The certificate has no end (RFC 5280 section 4.1.2.5): it is trusted by its pin.
func NewIdentity(name string, key crypto.Signer) (tls.Certificate, error) {
	if key == nil {
		_, fresh, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return tls.Certificate{}, fmt.Errorf("identity %s: %w", name, err)
		}
		key = fresh
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     []string{name},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("identity %s: %w", name, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("identity %s: %w", name, err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// ParseTLSGroup finds a TLS group by its IANA name, in any case: "X25519", "secp256r1", "X25519MLKEM768".
func ParseTLSGroup(name string) (tls.CurveID, error) {
	groups := []struct {
		name string
		id   tls.CurveID
	}{
		{"X25519", tls.X25519}, {"secp256r1", tls.CurveP256}, {"secp384r1", tls.CurveP384}, {"secp521r1", tls.CurveP521},
		{"X25519MLKEM768", tls.X25519MLKEM768}, {"SecP256r1MLKEM768", tls.SecP256r1MLKEM768},
		{"SecP384r1MLKEM1024", tls.SecP384r1MLKEM1024},
	}
	known := make([]string, len(groups))
	for i, g := range groups {
		if strings.EqualFold(g.name, name) {
			return g.id, nil
		}
		known[i] = g.name
	}
	return 0, fmt.Errorf("unknown TLS group %q; known: %s", name, strings.Join(known, ", "))
}
