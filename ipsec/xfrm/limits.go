package xfrm

import (
	"fmt"
	"time"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
)

// The kernel counts the bytes and packets of the inner packets that an SA carried, and compares them with its limits
// before each packet. The contract counts what the cipher gets: an inner packet of n bytes, padded with the two bytes of
// the trailer to a multiple of four, is at most n+5 bytes, and so at most (n+17)/16 blocks; both are reached, by n = 1
// modulo 4 and n = 15 modulo 16. After P packets of B bytes together,
//
//	bytes ≤ B + 5·P        blocks ≤ (B + 17·P) / 16
//
// The one number is within two limits of the kernel's if each takes a part of it, and which of them is reached first
// depends on the sizes of the packets. The parts are chosen for large packets: 15/16 of the blocks are reserved for what
// the bytes are worth, 9/10 of the bytes.
//
// A soft limit must not be late: it has to be told no later than at the packet that reaches it. So the packet in hand,
// of which the kernel knows nothing, is taken for the largest that there is: the MTU of the xfrm interface, or without one
// what IP allows, because a packet without DF enters the tunnel whole. A hard limit must not be passed: the same
// allowance makes the kernel refuse what could pass it. What the translation costs is that a limit comes early: by a
// sixteenth for blocks and a tenth for bytes, and by the size of the largest packet, where packets are large; earlier
// where most of them are small. Limits of packets are exact.
const largestPacket = 65535 // bytes of IP

// plainOf is what the cipher gets for an inner packet of n bytes.
func plainOf(n int) uint64 { return uint64(n+2+3) &^ 3 }

// bound is a limit of the contract as limits of the kernel's. The first of them that is reached stands for it.
type bound struct {
	trigger ipsec.Trigger
	kernel  xfrmnl.Limits
}

// softBounds are the limits to tell at. Below its bound's limits and with one more packet of any size, a limit is not
// reached.
func softBounds(l ipsec.Limits, largest int) (b []bound) {
	if l.Blocks != 0 {
		b = append(b, blockBound(l.Blocks, largest))
	}
	if l.Bytes != 0 {
		b = append(b, byteBound(l.Bytes, largest))
	}
	if l.Packets != 0 {
		b = append(b, bound{ipsec.ByPackets, xfrmnl.Limits{Bytes: xfrmnl.None, Packets: l.Packets - 1}})
	}
	return append(b, timeBound(l.Time)...)
}

// hardBounds are the limits to refuse at. Below its bound's limits and with one more packet of any size, a limit is
// reached at most. ErrLimit: it is less than what one packet may take.
func hardBounds(l ipsec.Limits, largest int) (b []bound, err error) {
	plain := plainOf(largest)
	blocks := ipsec.Blocks(int(plain))
	if l.Blocks != 0 {
		if l.Blocks < blocks {
			return nil, fmt.Errorf("%w: %d blocks, and one packet may take %d", ErrLimit, l.Blocks, blocks)
		}
		b = append(b, blockBound(l.Blocks, largest))
	}
	if l.Bytes != 0 {
		if l.Bytes < plain {
			return nil, fmt.Errorf("%w: %d bytes, and one packet may take %d", ErrLimit, l.Bytes, plain)
		}
		b = append(b, byteBound(l.Bytes, largest))
	}
	if l.Packets != 0 {
		b = append(b, bound{ipsec.ByPackets, xfrmnl.Limits{Bytes: xfrmnl.None, Packets: l.Packets}})
	}
	return append(b, timeBound(l.Time)...), nil
}

// blockBound: with B < bytes and P < packets, (B + 17·P)/16 ≤ (15·rest − 1 + 17·(rest/17))/16 < rest.
func blockBound(limit uint64, largest int) bound {
	rest := less(limit, ipsec.Blocks(int(plainOf(largest))))
	bytes := 15 * rest
	if rest > xfrmnl.None/15 {
		bytes = xfrmnl.None
	}
	return bound{ipsec.ByBlocks, xfrmnl.Limits{Bytes: bytes, Packets: rest/17 + 1}}
}

// byteBound: with B < bytes and P < packets, B + 5·P ≤ rest − rest/10 − 1 + 5·(rest/50) < rest.
func byteBound(limit uint64, largest int) bound {
	rest := less(limit, plainOf(largest))
	return bound{ipsec.ByBytes, xfrmnl.Limits{Bytes: rest - rest/10, Packets: rest/50 + 1}}
}

func less(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}

// timeBound: the kernel knows whole seconds, of which the last may be cut short.
func timeBound(d time.Duration) []bound {
	if d <= 0 {
		return nil
	}
	return []bound{{ipsec.ByTime, xfrmnl.Limits{Bytes: xfrmnl.None, Packets: xfrmnl.None, Seconds: max(1, uint64(d/time.Second))}}}
}

// tightest is what the kernel watches for all of them.
func tightest(bounds []bound) xfrmnl.Limits {
	l := xfrmnl.NoLimits
	for _, b := range bounds {
		l.Bytes, l.Packets = min(l.Bytes, b.kernel.Bytes), min(l.Packets, b.kernel.Packets)
		if s := b.kernel.Seconds; s != 0 && (l.Seconds == 0 || s < l.Seconds) {
			l.Seconds = s
		}
	}
	return l
}

// reached are the bounds that an SA has reached which the kernel says is beyond a limit. Where counts do not tell, it was
// time.
func reached(bounds []bound, s *xfrmnl.State) (all []ipsec.Trigger) {
	timed := false
	for _, b := range bounds {
		if s.Bytes >= b.kernel.Bytes || s.Packets >= b.kernel.Packets {
			all = append(all, b.trigger)
		}
		timed = timed || b.trigger == ipsec.ByTime
	}
	if len(all) == 0 && timed {
		return []ipsec.Trigger{ipsec.ByTime}
	}
	return all
}

// mostPlain and mostBlocks are what packets of so many bytes together were at most for the cipher.
func mostPlain(bytes, packets uint64) uint64  { return bytes + 5*packets }
func mostBlocks(bytes, packets uint64) uint64 { return (bytes + 17*packets) / 16 }
