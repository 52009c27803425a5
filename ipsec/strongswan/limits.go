package strongswan

import (
	"errors"
	"fmt"
	"math"
	"time"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
	"pqlab/ipsec/xfrm"
)

// ErrLimits: rekey limits that charon could not keep.
var ErrLimits = errors.New("limits are too low for strongSwan to keep")

// lifetimes are the limits of a CHILD_SA as swanctl.conf has them.
//
// charon hands bytes and packets to the kernel, which tells it when an SA reaches them; it knows no blocks. So each limit
// of volume is translated to bytes and packets by which it can never be late (see package xfrm), and they may come early.
// Both ends watch the SAs of both directions, each of which counts what it sees of them, and a packet that is lost is seen
// by one end only. So that only one of them begins and yet neither is late, one end has the limits and the other eight
// ninths of them. Of time, where the two see the same, one end has the limit and the other an eighth more.
type lifetimes struct {
	rekeyTime, lifeTime time.Duration // whole seconds
	rekey, life         xfrmnl.Limits
}

// first begins rekeys; largest is the largest inner packet in bytes.
func lifetimesOf(l ipsec.Limits, first bool, largest int) (lifetimes, error) {
	if l.Time < time.Second {
		return lifetimes{}, fmt.Errorf("%w: time %v; it counts whole seconds, from 1 on", ErrLimits, l.Time)
	}
	t := lifetimes{rekeyTime: l.Time.Truncate(time.Second)}
	if !first {
		t.rekeyTime += max(time.Second, (l.Time / 8).Truncate(time.Second))
	}
	t.lifeTime = (l.Time + max(l.Time/4, time.Minute)).Truncate(time.Second)
	t.rekey = xfrm.Soft(early(l, first), largest)
	if t.rekey.Packets < leastPackets || t.rekey.Bytes < leastPackets*uint64(largest) {
		return lifetimes{}, fmt.Errorf("%w: %s; translated to what the kernel counts, with inner packets of up to %d bytes, they leave %d bytes and %d packets; "+
			"give more, or a smaller MTU", ErrLimits, describe(l), largest, t.rekey.Bytes, t.rekey.Packets)
	}
	hard := l
	hard.Blocks, hard.Bytes, hard.Packets = four(l.Blocks), four(l.Bytes), four(l.Packets)
	var err error
	t.life, err = xfrm.Hard(hard, largest)
	return t, err
}

// leastPackets of any size have to fit the limits, so that not every packet begins a rekey.
const leastPackets = 4

// early is what the end watches that begins.
func early(l ipsec.Limits, first bool) ipsec.Limits {
	if first {
		l.Blocks, l.Bytes, l.Packets = l.Blocks-l.Blocks/9, l.Bytes-l.Bytes/9, l.Packets-l.Packets/9
	}
	return l
}

func four(n uint64) uint64 {
	if n > math.MaxUint64/4 {
		return math.MaxUint64
	}
	return 4 * n
}

func describe(l ipsec.Limits) string {
	s := ""
	for _, v := range []struct {
		n    uint64
		unit string
	}{{l.Blocks, "blocks"}, {l.Bytes, "bytes"}, {l.Packets, "packets"}} {
		if v.n != 0 {
			s += fmt.Sprintf(", %d %s", v.n, v.unit)
		}
	}
	if s == "" {
		return "none of volume"
	}
	return s[2:]
}
