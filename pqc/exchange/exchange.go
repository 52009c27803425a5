// Package exchange agrees on the keys of one pair of IPsec security associations: a TLS 1.3 session with certificates
// on both sides, and inside it five messages that carry a post-quantum signature and a KEM. The key is a combination
// of a TLS exporter's value and the KEM's secret. docs/exchange.md describes it byte by byte.
//
// The initiator calls Initiate, installs its inbound SA, switches its outbound SA, and calls Session.Done. The
// responder calls Respond, installs its inbound SA, and calls Session.Confirm, within which it switches its outbound
// SA. So neither sends before the other can receive.
package exchange

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"pqlab/pqc"
)

// DefaultDeadline is how long each step of an exchange may take.
const DefaultDeadline = 5 * time.Second

// MinSPI is the lowest SPI that an SA may have (RFC 4303 section 2.1).
const MinSPI = 256

// Endpoint is what a node brings to each of its exchanges.
type Endpoint struct {
	Certificate tls.Certificate // NewIdentity makes one
	// TLSGroups are what a responder's TLS takes before it knows the tunnel, whose Config then decides; none means X25519
	// alone. An initiator offers those of its Config.
	TLSGroups []tls.CurveID
	// Deadline of each step: the TLS handshake, and the sending and receiving of each message. 0 means DefaultDeadline.
	Deadline time.Duration
	// Stopwatch is read when a step of Timings begins and ends, and tells the time since any moment. Nil means the wall
	// clock; a benchmark may give the CPU time of the process.
	Stopwatch func() time.Duration
	// KeyLog gets, of each exchange that this end answers, the secrets of its TLS session as lines of a TLS key log, before
	// anything under them is sent. They open the session; what its keys are exported from is not among them. Nil: nobody
	// gets them.
	KeyLog io.Writer
}

// Format keeps every verb from printing the certificate's private key.
func (Endpoint) Format(f fmt.State, _ rune) { fmt.Fprint(f, "exchange endpoint") }

// MarshalJSON keeps encoding/json from printing the certificate's private key.
func (Endpoint) MarshalJSON() ([]byte, error) { return []byte(`"exchange endpoint"`), nil }

// Config is what both ends of a tunnel have to agree on, and how one trusts the other.
type Config struct {
	Peer Peer
	// Suites that are acceptable, at most 64; an initiator's come in the order of its preference, which decides.
	Suites   []pqc.Suite
	Combiner pqc.Combiner // nil means pqc.XOR
	// Pinned are long-lived signature keys, which make the authentication post-quantum. Nil means a signature key made
	// for this exchange only ("fresh"), as the paper measures it: it authenticates nobody.
	Pinned        *Pinned
	Mutual        bool // the initiator signs too
	Encapsulation Encapsulation
	// TLSGroups are the only ones that the tunnel is keyed over, whatever the Endpoint takes. None means X25519 alone, so
	// that the combination joins a classical and a post-quantum secret.
	TLSGroups []tls.CurveID
	// Deadline replaces the Endpoint's if it is not 0: for a responder, once Lookup has returned.
	Deadline time.Duration

	// Reveal is for verification only, never for use: it is given copies of the secrets of an exchange, so that the
	// keys can be recomputed independently. It runs before the keys are confirmed.
	Reveal func(Secrets)
	// Tamper is for verification only: it is given each message that is about to be sent, header included, and returns
	// what is written to the TLS session in its place. With it an otherwise honest peer becomes a malicious one.
	Tamper func(message []byte) []byte
}

// Format keeps every verb from printing keys, also those that have no Format of their own.
func (Config) Format(f fmt.State, _ rune) { fmt.Fprint(f, "exchange config") }

// MarshalJSON keeps encoding/json from printing keys.
func (Config) MarshalJSON() ([]byte, error) { return []byte(`"exchange config"`), nil }

// Pinned are long-lived signature keys. The suite's signature scheme has to be theirs.
type Pinned struct {
	Own  pqc.SigningKey // of the responder, and with Mutual of the initiator
	Peer pqc.PublicKey  // of the initiator, and with Mutual of the responder
}

// Format keeps every verb from printing the keys.
func (Pinned) Format(f fmt.State, _ rune) { fmt.Fprint(f, "pinned keys") }

// MarshalJSON keeps encoding/json from printing the keys.
func (Pinned) MarshalJSON() ([]byte, error) { return []byte(`"pinned keys"`), nil }

// Encapsulation says how ESP will travel between the ends; both must want the same.
type Encapsulation uint8

const (
	UDP Encapsulation = iota // RFC 3948
	ESP                      // IP protocol 50
)

func (e Encapsulation) String() string {
	switch e {
	case UDP:
		return "udp"
	case ESP:
		return "esp"
	}
	return fmt.Sprintf("encapsulation %d", uint8(e))
}

// Proposal is what the initiator says of the tunnel that it wants to key.
type Proposal struct {
	Tunnel   string // 1 to 64 bytes, printable
	SPI      uint32 // of the initiator's inbound SA, at least MinSPI
	Trigger  string // why now ("time", "blocks", "demand"); for information, at most 32 bytes
	Replaces uint32 // SPI of the initiator's inbound SA that the new one replaces; 0 if there is none
}

// Hello is what a responder knows when it has to choose a Config.
type Hello struct {
	Proposal
	// Pin of the peer's TLS certificate. The peer has proved to hold its key; whether it is trusted with the tunnel is
	// checked against the Config.
	Pin           Pin
	Certificate   *x509.Certificate
	Remote        net.Addr
	Encapsulation Encapsulation
}

// Accept is called once the peer is trusted with the tunnel, and gives the SPI of the responder's inbound SA, at least
// MinSPI. It must not block.
type Accept func() (spi uint32, err error)

// Lookup gives the Config for a peer and a tunnel, and how to accept the exchange. It must not block, and reserves
// nothing: whoever asks is a stranger still. Any error of either function refuses the exchange; one that is Busy tells
// the peer to try again later.
type Lookup func(Hello) (Config, Accept, error)

// Timings of the steps of one exchange on one side, by the Endpoint's Stopwatch; a step that the side did not take is 0.
// What arrives in a message is measured from its bytes: parsing the key is part of Verify and Encaps.
type Timings struct {
	TLS             time.Duration // handshake, waiting for the peer included
	SignatureKeygen time.Duration
	KEMKeygen       time.Duration
	Sign            time.Duration
	Verify          time.Duration
	Encaps          time.Duration
	Decaps          time.Duration
	Combine         time.Duration // combination and derivation of all keys
	Total           time.Duration // by the wall clock: inside this package's calls, waiting for the peer included
}

// Traffic of one exchange, seen from one side, TLS included, TCP and IP not.
type Traffic struct {
	Sent, Received   int // bytes
	MessagesSent     int // of this protocol
	MessagesReceived int
	RoundTrips       int // times that this side had sent something and then waited for the peer
}

// Secrets are what a key was made of, for Config.Reveal.
type Secrets struct {
	Sources    []pqc.Source // as they were given to the combiner, in order
	Domain     string       // given to the combiner
	Transcript [TranscriptSize]byte
}

// Format keeps every verb from printing the secrets.
func (Secrets) Format(f fmt.State, _ rune) { fmt.Fprint(f, "exchange secrets") }

// MarshalJSON keeps encoding/json from printing the secrets.
func (Secrets) MarshalJSON() ([]byte, error) { return []byte(`"exchange secrets"`), nil }

func (c *Config) combiner() pqc.Combiner {
	if c.Combiner == nil {
		return pqc.XOR{}
	}
	return c.Combiner
}

// check finds what would make an exchange with this Config impossible or meaningless.
func (c *Config) check(initiator bool) error {
	switch {
	case len(c.Suites) == 0 || len(c.Suites) > maxSuites:
		return fmt.Errorf("%d suites, want 1 to %d", len(c.Suites), maxSuites)
	case c.Encapsulation > ESP:
		return fmt.Errorf("unknown %v", c.Encapsulation)
	case len(c.combiner().Name()) > maxName:
		return fmt.Errorf("combiner's name longer than %d bytes", maxName)
	}
	if err := c.Peer.check(); err != nil {
		return err
	}
	for _, s := range c.Suites {
		if s.KEM == nil || s.Signature == nil {
			return fmt.Errorf("a suite needs a signature and a KEM")
		}
	}
	if p := c.Pinned; p != nil {
		if signs := !initiator || c.Mutual; signs && p.Own == nil {
			return fmt.Errorf("pinned identity without an own signing key")
		}
		if verifies := initiator || c.Mutual; verifies && p.Peer == nil {
			return fmt.Errorf("pinned identity without the peer's public key")
		}
	}
	return nil
}

// usable says whether the pinned keys, if there are any, are of the suite's signature scheme.
func (c *Config) usable(s pqc.Suite) bool {
	if c.Pinned == nil {
		return true
	}
	name := s.Signature.Name()
	return (c.Pinned.Own == nil || c.Pinned.Own.Scheme().Name() == name) &&
		(c.Pinned.Peer == nil || c.Pinned.Peer.Scheme().Name() == name)
}

func (p *Proposal) check() error {
	switch {
	case len(p.Tunnel) == 0 || len(p.Tunnel) > maxTunnel:
		return fmt.Errorf("tunnel's name of %d bytes, want 1 to %d", len(p.Tunnel), maxTunnel)
	case len(p.Trigger) > maxName:
		return fmt.Errorf("trigger of %d bytes, want at most %d", len(p.Trigger), maxName)
	case !printable(p.Tunnel) || !printable(p.Trigger): // they end up in logs
		return fmt.Errorf("tunnel %q, trigger %q: want printable UTF-8", p.Tunnel, p.Trigger)
	case p.SPI < MinSPI:
		return fmt.Errorf("SPI %#x, want at least %#x (RFC 4303 section 2.1)", p.SPI, MinSPI)
	case p.Replaces != 0 && p.Replaces < MinSPI:
		return fmt.Errorf("replaced SPI %#x, want 0 or at least %#x", p.Replaces, MinSPI)
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
