package xfrm

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
)

// counted is what the contract counts of inner packets.
func counted(c *ipsec.Counters, inner int) {
	plain := int(plainOf(inner))
	c.Bytes += uint64(plain)
	c.Blocks += ipsec.Blocks(plain)
	c.Packets++
}

// kernel is an SA as the kernel counts it: it looks at the limits before each packet (xfrm_state_check_expire), and counts
// the inner packet after.
type kernel struct {
	soft, hard xfrmnl.Limits
	state      xfrmnl.State
	told, over bool
}

// packet says whether the packet leaves.
func (k *kernel) packet(inner int) bool {
	if k.state.Bytes >= k.hard.Bytes || k.state.Packets >= k.hard.Packets {
		k.over = true
	}
	if k.over {
		return false
	}
	if k.state.Bytes >= k.soft.Bytes || k.state.Packets >= k.soft.Packets {
		k.told = true
	}
	k.state.Bytes += uint64(inner)
	k.state.Packets++
	return true
}

// TestLimitsAreKept sends packets of every kind of mixture past a model of the kernel: a soft limit is told no later than
// at the packet that reaches it, nothing leaves beyond a hard one, and neither comes needlessly early.
func TestLimitsAreKept(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		largest := []int{1280, 1438, 8938, largestPacket}[random.IntN(4)]
		sizes := []func() int{
			func() int { return largest },
			func() int { return 20 },
			func() int { return 31 }, // the worst for blocks
			func() int { return 21 }, // the worst for bytes
			func() int { return 40 + random.IntN(2)*(largest-40) },
			func() int { return 20 + random.IntN(largest-19) },
			func() int { return 16*(2+random.IntN(largest/16-2)) - 1 },
		}[random.IntN(7)]
		limit := uint64(1) << (4 + random.IntN(15))
		limit += random.Uint64N(limit)
		l := ipsec.Limits{}
		of := func(ipsec.Counters) uint64 { return 0 }
		var name ipsec.Trigger
		switch random.IntN(3) {
		case 0:
			l.Blocks, of, name = limit, func(c ipsec.Counters) uint64 { return c.Blocks }, ipsec.ByBlocks
		case 1:
			l.Bytes, of, name = limit*16, func(c ipsec.Counters) uint64 { return c.Bytes }, ipsec.ByBytes
		case 2:
			limit = limit/32 + 1
			l.Packets, of, name = limit, func(c ipsec.Counters) uint64 { return c.Packets }, ipsec.ByPackets
		}
		at := max(l.Blocks, l.Bytes, l.Packets)
		soft := softBounds(l, largest)
		hard, err := hardBounds(l, largest)
		one := map[ipsec.Trigger]uint64{ipsec.ByBlocks: ipsec.Blocks(int(plainOf(largest))), ipsec.ByBytes: plainOf(largest), ipsec.ByPackets: 1}[name]
		if (err != nil) != (at < one) || err != nil && !errors.Is(err, ErrLimit) {
			t.Fatalf("%+v, packets up to %d: %v", l, largest, err)
		}

		k := kernel{soft: tightest(soft), hard: xfrmnl.NoLimits}
		var c ipsec.Counters
		for !k.told {
			if n := of(c); n >= at {
				t.Fatalf("%+v: not told until %+v", l, c)
			}
			inner := sizes()
			k.packet(inner)
			counted(&c, inner)
		}
		if got := reached(soft, &k.state); !slices.Equal(got, []ipsec.Trigger{name}) {
			t.Fatalf("%+v: told of %v", l, got)
		}
		if name == ipsec.ByPackets && c.Packets != at {
			t.Fatalf("%d packets: told at %d", at, c.Packets)
		}
		if err != nil {
			continue
		}
		k, c = kernel{soft: xfrmnl.NoLimits, hard: tightest(hard)}, ipsec.Counters{}
		for {
			inner := sizes()
			if !k.packet(inner) {
				break
			}
			counted(&c, inner)
		}
		if n := of(c); n > at || name == ipsec.ByPackets && n != at {
			t.Fatalf("%+v: %+v left", l, c)
		}
		if most := (ipsec.Counters{Blocks: mostBlocks(k.state.Bytes, k.state.Packets), Bytes: mostPlain(k.state.Bytes, k.state.Packets)}); most.Blocks < c.Blocks || most.Bytes < c.Bytes {
			t.Fatalf("%+v is not a bound of %+v", most, c)
		}
	}
}

// TestBounds: with both of the kernel's limits just not reached, and the worst of sizes, the largest packet does not reach
// the contract's. That they come together is rare, so random traffic does not show it.
func TestBounds(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		largest := 1280 + random.IntN(largestPacket-1279)
		limit := 1<<17 + random.Uint64N(1<<uint(18+random.IntN(40)))
		b := blockBound(limit, largest).kernel
		if n := mostBlocks(b.Bytes-1, b.Packets-1) + ipsec.Blocks(int(plainOf(largest))); n >= limit {
			t.Fatalf("%d blocks, packets of up to %d: %d without being told", limit, largest, n)
		}
		b = byteBound(limit, largest).kernel
		if n := mostPlain(b.Bytes-1, b.Packets-1) + plainOf(largest); n >= limit {
			t.Fatalf("%d bytes, packets of up to %d: %d without being told", limit, largest, n)
		}
	}
	// No packet takes more than the bounds say.
	for n := 20; n <= largestPacket; n++ {
		if plain := plainOf(n); plain > mostPlain(uint64(n), 1) || ipsec.Blocks(int(plain)) > mostBlocks(uint64(n), 1) {
			t.Fatalf("%d bytes", n)
		}
	}
}

// TestLargePacketsComeLateEnough: the default limit is used nearly up where packets fill the MTU.
func TestLargePacketsComeLateEnough(t *testing.T) {
	t.Parallel()
	const limit, size = 1 << 22, 1438
	k := kernel{soft: tightest(softBounds(ipsec.Limits{Blocks: limit}, size)), hard: xfrmnl.NoLimits}
	var c ipsec.Counters
	for !k.told {
		k.packet(size)
		counted(&c, size)
	}
	if c.Blocks < limit*93/100 {
		t.Errorf("told at %d of %d blocks", c.Blocks, limit)
	}
}

func TestTogether(t *testing.T) {
	t.Parallel()
	l := ipsec.Limits{Time: 90 * time.Second, Blocks: 1 << 20, Bytes: 1 << 24, Packets: 1 << 30}
	soft := softBounds(l, 1438)
	got := tightest(soft)
	if got.Seconds != 90 || got.Bytes != min(blockBound(1<<20, 1438).kernel.Bytes, byteBound(1<<24, 1438).kernel.Bytes) || got.Packets != blockBound(1<<20, 1438).kernel.Packets {
		t.Errorf("%+v", got)
	}
	if by := reached(soft, &xfrmnl.State{Bytes: 5, Packets: 1}); !slices.Equal(by, []ipsec.Trigger{ipsec.ByTime}) {
		t.Errorf("nothing but time is left, and %v is told", by)
	}
	if got := tightest(softBounds(ipsec.Limits{}, 1438)); got != xfrmnl.NoLimits {
		t.Errorf("no limits are %+v", got)
	}
	if got := tightest(softBounds(ipsec.Limits{Time: time.Millisecond}, 1438)); got.Seconds != 1 {
		t.Errorf("%+v", got)
	}
}
