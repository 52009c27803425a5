package gateway

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"pqlab/ipsec"
	"pqlab/ipsec/gateway/esp"
)

const defaultWindow = 4096 // packets

// maxWindow keeps the replay window well inside the 2^31 that telling the high half from the low one allows.
const maxWindow = 1 << 20 // packets

// teller takes what is to be told of limits, without waiting: an expiry.Queue.
type teller interface{ Add(ipsec.Expiry) }

// usage counts what one SA carried and watches its limits. One goroutine counts; anyone may read the counters.
type usage struct {
	tunnel     string
	spi        uint32
	soft, hard ipsec.Limits
	told       uint8 // a bit for each limit that was reached
	spent      bool  // beyond a hard limit

	// The counting goroutine's own, and what others may read of it.
	blocks, bytes, packets, seq uint64
	public                      struct{ blocks, bytes, packets, seq atomic.Uint64 }
}

// admit says whether a packet with n bytes for the cipher keeps within the hard limits. The first that does not spends
// the SA for good.
func (u *usage) admit(n int, tell teller) bool {
	if u.spent {
		return false
	}
	if u.exceeds(u.blocks+blocks(n), u.bytes+uint64(n), u.packets+1) {
		u.spend(u.blocks+blocks(n), u.bytes+uint64(n), u.packets+1, tell)
		return false
	}
	return true
}

func (u *usage) exceeds(blocks, bytes, packets uint64) bool {
	h := &u.hard
	return h.Blocks != 0 && blocks > h.Blocks || h.Bytes != 0 && bytes > h.Bytes || h.Packets != 0 && packets > h.Packets
}

// spend refuses all further packets, and tells of the hard limits that the packet in hand would have passed.
func (u *usage) spend(blocks, bytes, packets uint64, tell teller) {
	u.spent = true
	u.reach(3, u.hard.Blocks != 0 && blocks > u.hard.Blocks, tell)
	u.reach(4, u.hard.Bytes != 0 && bytes > u.hard.Bytes, tell)
	u.reach(5, u.hard.Packets != 0 && packets > u.hard.Packets, tell)
}

// count adds one packet with n bytes for the cipher; seq is the SA's sequence number after it.
func (u *usage) count(n int, seq uint64, tell teller) {
	u.seq = seq
	u.blocks += blocks(n)
	u.bytes += uint64(n)
	u.packets++
	for i, l := range [...]*ipsec.Limits{&u.soft, &u.hard} {
		u.reach(3*i, l.Blocks != 0 && u.blocks >= l.Blocks, tell)
		u.reach(3*i+1, l.Bytes != 0 && u.bytes >= l.Bytes, tell)
		u.reach(3*i+2, l.Packets != 0 && u.packets >= l.Packets, tell)
	}
}

func (u *usage) reach(limit int, reached bool, tell teller) {
	if !reached || u.told&(1<<limit) != 0 {
		return
	}
	u.told |= 1 << limit
	trigger := [...]ipsec.Trigger{ipsec.ByBlocks, ipsec.ByBytes, ipsec.ByPackets}[limit%3]
	u.publish() // whoever is told reads them, and must not find them below the limit
	tell.Add(ipsec.Expiry{Tunnel: u.tunnel, SPI: u.spi, Trigger: trigger, Hard: limit >= 3})
}

// publish lets others read the counters.
func (u *usage) publish() {
	u.public.blocks.Store(u.blocks)
	u.public.bytes.Store(u.bytes)
	u.public.packets.Store(u.packets)
	u.public.seq.Store(u.seq)
}

func (u *usage) counters() ipsec.Counters {
	return ipsec.Counters{
		Blocks: u.public.blocks.Load(), Bytes: u.public.bytes.Load(), Packets: u.public.packets.Load(),
		Seq: u.public.seq.Load(),
	}
}

// blocks is how many AES blocks n bytes take.
func blocks(n int) uint64 { return uint64(n+15) / 16 }

// outboundSA belongs to the goroutine that reads the port, between acquire and release.
type outboundSA struct {
	usage
	*esp.Sealer
	sealing sync.Mutex
}

// acquire gives the SA that protects what leaves, until release; nil when there is none.
func (t *tunnel) acquire() *outboundSA {
	for {
		sa := t.out.Load()
		if sa == nil {
			return nil
		}
		sa.sealing.Lock()
		if t.out.Load() == sa {
			return sa
		}
		sa.sealing.Unlock() // replaced meanwhile, and whoever did that takes its counters for final
	}
}

func (o *outboundSA) release() { o.sealing.Unlock() }

// replace makes sa, or none, protect what leaves. When it returns nothing is sealed with the SA before any more, and
// that one's counters are final.
func (t *tunnel) replace(sa *outboundSA) {
	if sa != nil {
		t.asked.Store(false)
	}
	if old := t.out.Swap(sa); old != nil {
		old.sealing.Lock()
		defer old.sealing.Unlock()
	}
}

// inboundSA belongs to the goroutine that reads its tunnel's outer socket.
type inboundSA struct {
	usage
	*esp.Opener
	tunnel *tunnel
}

func newUsage(tunnel string, sa *ipsec.SA) usage {
	return usage{tunnel: tunnel, spi: sa.SPI, soft: sa.Soft, hard: sa.Hard, seq: sa.Seq}
}

// newOutbound makes an SA ready for use. The caller wipes sa.
func newOutbound(t *tunnel, sa *ipsec.SA) (*outboundSA, error) {
	sealer, err := esp.NewSealer(sa.SPI, &sa.Key, sa.Salt, sa.Seq)
	if err != nil {
		return nil, err
	}
	o := &outboundSA{usage: newUsage(t.policy.Tunnel, sa), Sealer: sealer}
	o.publish()
	return o, nil
}

// newInbound makes an SA ready for use. The caller wipes sa.
func newInbound(t *tunnel, sa *ipsec.SA) (*inboundSA, error) {
	window := sa.ReplayWindow
	if window == 0 {
		window = defaultWindow
	}
	if window > maxWindow {
		return nil, fmt.Errorf("replay window of %d packets is above %d", window, maxWindow)
	}
	opener, err := esp.NewOpener(sa.SPI, &sa.Key, sa.Salt, window, sa.Seq)
	if err != nil {
		return nil, err
	}
	i := &inboundSA{usage: newUsage(t.policy.Tunnel, sa), Opener: opener, tunnel: t}
	i.publish()
	return i, nil
}

// seal protects the n bytes at buf[esp.Offset:], and is false where the SA is spent.
func (o *outboundSA) seal(buf []byte, n int, next byte, tell teller) bool {
	plain := esp.Plaintext(n)
	if !o.admit(plain, tell) {
		return false
	}
	if errors.Is(o.Seal(buf, n, next), esp.ErrExhausted) {
		o.spent = true
		o.reach(5, true, tell)
		return false
	}
	o.count(plain, o.Seq(), tell)
	return true
}
