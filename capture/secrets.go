package capture

import (
	"fmt"
	"net/netip"
	"time"
)

// Secrets decrypt what a capture has. They come in pieces, each before the packets that it decrypts.
type Secrets struct {
	Until time.Time `json:"until"`         // all secrets of packets up to here have come
	TLS   []byte    `json:"tls,omitempty"` // lines of a TLS key log, each with its line feed
	SAs   []SA      `json:"sas,omitempty"`
}

// SA is an IPsec security association as it was installed where its packets arrive: AES-256-GCM with a 16-byte ICV
// (RFC 4106) and 64-bit sequence numbers.
type SA struct {
	Tunnel   string     `json:"tunnel"`
	From     string     `json:"from"` // nodes
	To       string     `json:"to"`
	SPI      uint32     `json:"spi"`
	Replaces uint32     `json:"replaces,omitempty"` // SPI of the one before it in this direction; 0: it is the first
	Src      netip.Addr `json:"src"`                // outer addresses
	Dst      netip.Addr `json:"dst"`
	Key      []byte     `json:"key"`
	Salt     []byte     `json:"salt"`
}

// Neither prints what is secret.

func (s Secrets) String() string             { return fmt.Sprintf("secrets until %v", s.Until) }
func (s Secrets) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }
func (s SA) String() string                  { return fmt.Sprintf("SA %#08x", s.SPI) }
func (s SA) Format(f fmt.State, _ rune)      { fmt.Fprint(f, s.String()) }

// comment is shown at the first packet under the SA.
func (s SA) comment() string {
	if s.Replaces == 0 {
		return fmt.Sprintf("tunnel %s, %s to %s: first packet under SA 0x%08x", s.Tunnel, s.From, s.To, s.SPI)
	}
	return fmt.Sprintf("tunnel %s, %s to %s: rekeyed; first packet under SA 0x%08x, which replaces 0x%08x",
		s.Tunnel, s.From, s.To, s.SPI, s.Replaces)
}

// destination of an SA's packets tells it from others.
type destination struct {
	addr netip.Addr
	spi  uint32
}
