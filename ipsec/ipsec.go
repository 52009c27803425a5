// Package ipsec keeps ESP tunnels keyed: it installs security associations in a Dataplane, watches their limits and
// replaces them before they are spent, so that no packet is lost (make before break).
package ipsec

import (
	"fmt"
	"net/netip"
	"time"
)

// Encapsulation says how ESP travels between the gateways.
type Encapsulation uint8

const (
	UDP Encapsulation = iota // RFC 3948, UDP port 4500 on both sides
	ESP                      // IP protocol 50
)

// UDPPort carries ESP in UDP (RFC 3948 section 2).
const UDPPort = 4500

// Policy says which traffic a tunnel protects and where its ESP packets go. While a policy is installed, plaintext
// between its subnets is refused in both directions.
type Policy struct {
	Tunnel        string // name, unique in a dataplane
	Local, Remote []netip.Prefix
	Src, Dst      netip.Addr // outer addresses: ours, the peer's
	Encapsulation Encapsulation
	PathMTU       int // bytes of IP packet that the way to Dst carries
}

// SA is one direction of a tunnel: AES-256-GCM with a 16-byte ICV (RFC 4106), extended sequence numbers (RFC 4303
// section 2.2.1). Keys are wiped by whoever drops the SA; it never prints them.
type SA struct {
	SPI          uint32 // not below 256 (RFC 4303 section 2.1)
	Key          [32]byte
	Salt         [4]byte
	ReplayWindow uint32 // packets; 0 means 4096. Inbound only
	Seq          uint64 // sequence number of the last packet; 0 in a new SA. Tests set it near 2^32
	Soft, Hard   Limits // Soft: tell and go on; Hard: tell and refuse every further packet. A Tunnel watches Time itself
}

// Wipe overwrites the key material.
func (sa *SA) Wipe() {
	clear(sa.Key[:])
	clear(sa.Salt[:])
}

// String names the SA by its SPI and nothing else.
func (sa SA) String() string { return fmt.Sprintf("SA %#08x", sa.SPI) }

// GoString keeps %#v from printing keys.
func (sa SA) GoString() string { return sa.String() }

// Format keeps every other verb from printing keys.
func (sa SA) Format(f fmt.State, _ rune) { fmt.Fprint(f, sa.String()) }

// MarshalJSON keeps encoding/json from printing keys.
func (sa SA) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", sa.String()), nil }

// Limits of one SA. A zero field is no limit.
type Limits struct {
	Time    time.Duration
	Blocks  uint64 // AES blocks of 16 bytes, per packet, rounded up, as the cipher counts them
	Bytes   uint64 // of plaintext given to the cipher: inner packet, padding, trailer
	Packets uint64
}

// Counters of one SA. Where the kernel counts, which does not see the cipher's padding, Blocks and Bytes are bounds that
// are never below what was.
type Counters struct {
	Blocks, Bytes, Packets uint64
	Seq                    uint64 // last sequence number sent, or highest accepted
}

// Trigger says why a rekey began.
type Trigger string

const (
	ByTime    Trigger = "time"
	ByBlocks  Trigger = "blocks"
	ByBytes   Trigger = "bytes"
	ByPackets Trigger = "packets"
	OnDemand  Trigger = "demand"
	ByPeer    Trigger = "peer"    // the other end began
	ByTraffic Trigger = "traffic" // a packet to protect found no SA
)

// Expiry is what a dataplane says when an outbound or inbound SA reaches a limit, once for each limit; and, with Trigger
// ByTraffic and no SPI, when a tunnel that has no outbound SA has a packet for one, once until it gets one.
type Expiry struct {
	Tunnel  string
	SPI     uint32
	Trigger Trigger
	Hard    bool
}

// Drops counts packets that a dataplane refused, by reason. They are of one tunnel, or of the dataplane where no
// tunnel could be told.
type Drops struct {
	NoSA       uint64 `json:"no_sa"` // outbound: protected traffic without a usable SA
	UnknownSPI uint64 `json:"unknown_spi"`
	Replay     uint64 `json:"replay"`    // sequence number seen before, or left of the window
	Integrity  uint64 `json:"integrity"` // ICV wrong
	Malformed  uint64 `json:"malformed"` // too short, bad padding, bad next header
	Policy     uint64 `json:"policy"`    // inner addresses outside the SA's policy
	Plaintext  uint64 `json:"plaintext"` // protected traffic that came or tried to leave in the clear
	Expired    uint64 `json:"expired"`   // outbound beyond the hard limit
	TooBig     uint64 `json:"too_big"`   // answered with ICMP too big, or not fragmentable
	Send       uint64 `json:"send"`      // the kernel refused the packet
}

// Dataplane carries the packets of the tunnels of one node. Its methods may be called from any goroutine.
//
// A Dataplane owns what it makes of the SAs that are installed in it, and drops it when they are removed.
type Dataplane interface {
	// Name is what reports show: "gateway/tun", "gateway/packet", "xfrm".
	Name() string
	// AddTunnel installs a policy. From its return on no plaintext between the policy's subnets enters or leaves.
	AddTunnel(Policy) error
	// AddInbound makes the node accept packets of sa on the tunnel, beside those of earlier SAs. It wipes sa, whatever it
	// returns.
	AddInbound(tunnel string, sa *SA) error
	// SetOutbound makes sa protect every further packet of the tunnel, in one step and without a gap. The SA that it
	// replaces keeps its counters until RemoveOutbound. It wipes sa, whatever it returns.
	SetOutbound(tunnel string, sa *SA) error
	// RemoveInbound and RemoveOutbound drop one SA; one that is gone already is no error.
	RemoveInbound(tunnel string, spi uint32) error
	RemoveOutbound(tunnel string, spi uint32) error
	// Counters of an SA in either direction; an SA that is not there is an error.
	Counters(tunnel string, spi uint32) (Counters, error)
	// Drops of a tunnel; an empty name gives those that belong to none.
	Drops(tunnel string) (Drops, error)
	// Expiries delivers each limit that an SA reaches, and each tunnel that has packets and no SA. It is closed by Close.
	Expiries() <-chan Expiry
	// RemoveTunnel drops the policy and all SAs of a tunnel.
	RemoveTunnel(tunnel string) error
	// Close removes everything that the dataplane made.
	Close() error
}
