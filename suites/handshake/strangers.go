package handshake

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/pqc"
	"pqlab/pqc/exchange"
	"pqlab/pqc/exchange/exchangetest"
	"pqlab/suites/testlab/gateways"
)

// change makes one end of a pair wrong.
type change func(e, other *exchangetest.End)

func strangers() {
	cfg := func() exchange.Config { return exchange.Config{Suites: smallest(), Mutual: true} }
	// refused runs an exchange in which one end is not as the other expects, and says what each end finds.
	refused := func(ctx SpecContext, pinned bool, initiator, responder change, wantI, wantR error) {
		GinkgoHelper()
		x, y, err := exchangetest.Pair(cfg())
		Expect(err).NotTo(HaveOccurred())
		if pinned {
			Expect(exchangetest.Pinned(&x, &y)).To(Succeed())
		}
		wrongX, wrongY := x, y
		if initiator != nil {
			initiator(&wrongX, &wrongY)
		}
		if responder != nil {
			responder(&wrongY, &wrongX)
		}
		a, b := gateways.Open(wrongX, gateways.TunnelName), gateways.Open(wrongY, gateways.TunnelName)
		v := gateways.Meet(ctx, a, b)
		Expect(v.Initiator).To(MatchError(wantI))
		Expect(v.Responder).To(MatchError(wantR))
		gateways.Untouched(a, b)

		// Whoever is in order serves the one whom it knows.
		if initiator != nil {
			gateways.StillWorks(ctx, gateways.Open(x, gateways.TunnelName), b)
		} else {
			gateways.StillWorks(ctx, a, gateways.Open(y, gateways.TunnelName))
		}
	}
	another := func(e, _ *exchangetest.End) { e.Endpoint.Certificate = identity() }
	withoutKey := func(e, _ *exchangetest.End) { e.Endpoint.Certificate.PrivateKey = identity().PrivateKey }
	otherPin := func(e, _ *exchangetest.End) { e.Config.Peer.Pin = exchange.PinOf(identity().Leaf) }
	DescribeTable("installs nothing for a wrong certificate", refused,
		Entry("a responder with another key", false, nil, change(another), exchange.ErrUntrusted, exchange.BadCertificate),
		Entry("an initiator with another key", false, change(another), nil, exchange.Refused, exchange.ErrUntrusted),
		Entry("a responder without the certificate's key", false, nil, change(withoutKey), exchange.BadCertificate, exchange.BadCertificate),
		Entry("an initiator without the certificate's key", false, change(withoutKey), nil, exchange.Disconnected, exchange.BadCertificate),
		Entry("an initiator that has pinned another", false, change(otherPin), nil, exchange.ErrUntrusted, exchange.BadCertificate),
		Entry("a responder that has pinned another", false, nil, change(otherPin), exchange.Refused, exchange.ErrUntrusted),
	)

	otherKey := func(e, _ *exchangetest.End) {
		e.Config.Pinned = &exchange.Pinned{Own: signer(), Peer: e.Config.Pinned.Peer}
	}
	expectsOther := func(e, _ *exchangetest.End) {
		e.Config.Pinned = &exchange.Pinned{Own: e.Config.Pinned.Own, Peer: public(signer())}
	}
	pretends := func(e, _ *exchangetest.End) {
		e.Config.Pinned = &exchange.Pinned{Own: pretender{signer(), e.Config.Pinned.Own.PublicKey()}, Peer: e.Config.Pinned.Peer}
	}
	fresh := func(e, _ *exchangetest.End) { e.Config.Pinned = nil }
	DescribeTable("installs nothing for a wrong signature key", refused,
		Entry("a responder with another", true, nil, change(otherKey), exchange.ErrPinnedKey, exchange.BadSignature),
		Entry("an initiator with another", true, change(otherKey), nil, exchange.BadSignature, exchange.ErrPinnedKey),
		Entry("a responder that has pinned another", true, nil, change(expectsOther), exchange.BadSignature, exchange.ErrPinnedKey),
		Entry("an initiator that has pinned another", true, change(expectsOther), nil, exchange.ErrPinnedKey, exchange.BadSignature),
		Entry("a responder that shows the key and signs with another", true, nil, change(pretends), pqc.ErrSignature, exchange.BadSignature),
		Entry("an initiator that shows the key and signs with another", true, change(pretends), nil, exchange.BadSignature, pqc.ErrSignature),
		Entry("a responder with a fresh one", true, nil, change(fresh), exchange.Refused, exchange.Refused),
		Entry("an initiator with a fresh one", true, change(fresh), nil, exchange.Refused, exchange.Refused),
	)

	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	certified := func(ctx SpecContext, of func(right, wrong authority) tls.Certificate, good bool) {
		right, wrong := newAuthority(), newAuthority()
		trust := exchange.Peer{CAs: right.pool(), Name: "peer"}
		for _, responding := range []bool{true, false} {
			x, y, err := exchangetest.Pair(cfg())
			Expect(err).NotTo(HaveOccurred())
			suspect, judge := &y, &x
			if !responding {
				suspect, judge = judge, suspect
			}
			judge.Config.Peer = trust
			suspect.Endpoint.Certificate = of(right, wrong)
			judge.Endpoint.Certificate = identity()
			suspect.Config.Peer = exchange.Peer{Pin: exchange.PinOf(judge.Endpoint.Certificate.Leaf)}
			a, b := gateways.Open(x, gateways.TunnelName), gateways.Open(y, gateways.TunnelName)
			v := gateways.Meet(ctx, a, b)
			if good {
				gateways.Succeeds(v)
				gateways.Keyed(a, b, gateways.TunnelName)
				continue
			}
			judged := v.Initiator
			if !responding {
				judged = v.Responder
			}
			Expect(judged).To(MatchError(exchange.ErrUntrusted))
			gateways.Untouched(a, b)
		}
	}
	DescribeTable("believes a CA about its own, in their name and time", certified,
		Entry("the right one", func(right, _ authority) tls.Certificate { return right.issue("peer", time.Hour, both...) }, true),
		Entry("of another CA", func(_, wrong authority) tls.Certificate { return wrong.issue("peer", time.Hour, both...) }, false),
		Entry("in another name", func(right, _ authority) tls.Certificate { return right.issue("other", time.Hour, both...) }, false),
		Entry("out of time", func(right, _ authority) tls.Certificate { return right.issue("peer", -time.Minute, both...) }, false),
		Entry("for another use", func(right, _ authority) tls.Certificate {
			return right.issue("peer", time.Hour, x509.ExtKeyUsageCodeSigning)
		}, false),
		Entry("self-signed", func(_, _ authority) tls.Certificate { return identity() }, false),
	)
}

// identity is that of a stranger who calls himself peer.
func identity() tls.Certificate {
	GinkgoHelper()
	c, err := exchange.NewIdentity("peer", nil)
	Expect(err).NotTo(HaveOccurred())
	return c
}

func signer() pqc.SigningKey {
	GinkgoHelper()
	k, err := smallest()[0].Signature.GenerateKey()
	Expect(err).NotTo(HaveOccurred())
	return k
}

func public(k pqc.SigningKey) pqc.PublicKey {
	GinkgoHelper()
	p, err := k.Scheme().ParsePublicKey(k.PublicKey())
	Expect(err).NotTo(HaveOccurred())
	return p
}

// pretender shows somebody else's public key.
type pretender struct {
	pqc.SigningKey
	shown []byte
}

func (p pretender) PublicKey() []byte { return p.shown }

// authority is a CA.
type authority struct {
	certificate *x509.Certificate
	key         ed25519.PrivateKey
}

func newAuthority() authority {
	GinkgoHelper()
	own, key, err := ed25519.GenerateKey(rand.Reader)
	Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return authority{certify(template, template, own, key), key}
}

func (a authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.certificate)
	return p
}

func (a authority) issue(name string, valid time.Duration, usage ...x509.ExtKeyUsage) tls.Certificate {
	GinkgoHelper()
	own, key, err := ed25519.GenerateKey(rand.Reader)
	Expect(err).NotTo(HaveOccurred())
	leaf := certify(&x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotAfter: time.Now().Add(valid),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage,
	}, a.certificate, own, a.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

func certify(template, parent *x509.Certificate, of ed25519.PublicKey, by ed25519.PrivateKey) *x509.Certificate {
	GinkgoHelper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, of, by)
	Expect(err).NotTo(HaveOccurred())
	c, err := x509.ParseCertificate(der)
	Expect(err).NotTo(HaveOccurred())
	return c
}
