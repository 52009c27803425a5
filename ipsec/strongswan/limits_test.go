package strongswan

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
)

// plainOf is what the cipher gets for an inner packet of n bytes (RFC 4303 section 2.4).
func plainOf(n int) uint64 { return uint64(n+2+3) &^ 3 }

// Packets of random sizes go through an SA that the kernel watches with the translated limits, and at which it looks before
// each. It tells at the packet that reaches the first of the asked ones, or earlier; and refuses before one is passed.
func TestNeverLate(t *testing.T) {
	t.Parallel()
	refused, told := 0, 0
	for seed := range uint64(1500) {
		r := rand.New(rand.NewPCG(seed, 7))
		largest := []int{1280, 1418, 1438, 8938}[r.IntN(4)]
		limits := ipsec.Limits{Time: time.Hour}
		for _, l := range []*uint64{&limits.Blocks, &limits.Bytes, &limits.Packets} {
			if r.IntN(2) == 0 {
				*l = uint64(1) << r.IntN(22) * (1 + r.Uint64N(5))
			}
		}
		first := r.IntN(2) == 0
		life, err := lifetimesOf(limits, first, largest)
		if err != nil {
			if !errors.Is(err, ErrLimits) {
				t.Fatalf("%+v: %v", limits, err)
			}
			refused++
			continue
		}
		var used ipsec.Counters
		var bytes, packets uint64 // as the kernel counts
		over := func(l ipsec.Limits) bool {
			return l.Blocks > 0 && used.Blocks > l.Blocks || l.Bytes > 0 && used.Bytes > l.Bytes || l.Packets > 0 && used.Packets > l.Packets
		}
		reached := func() bool {
			l := limits
			return l.Blocks > 0 && used.Blocks >= l.Blocks || l.Bytes > 0 && used.Bytes >= l.Bytes || l.Packets > 0 && used.Packets >= l.Packets
		}
		dying := false
		sizes := []func() int{
			func() int { return largest }, func() int { return 20 }, func() int { return 20 + r.IntN(largest-19) }, func() int { return 33 },
		}[r.IntN(4)]
		if limits.Blocks == 0 && limits.Bytes == 0 && limits.Packets == 0 {
			if life.rekey != xfrmnl.NoLimits || life.life != xfrmnl.NoLimits {
				t.Errorf("no limits became %+v", life)
			}
			continue
		}
		for range 1 << 18 {
			if bytes >= life.life.Bytes || packets >= life.life.Packets {
				break
			}
			n := sizes()
			if reached() && !dying {
				t.Fatalf("seed %d: %+v (first %t, up to %d bytes) are not told of at %+v", seed, limits, first, largest, used)
			}
			used.Blocks, used.Bytes, used.Packets = used.Blocks+ipsec.Blocks(int(plainOf(n))), used.Bytes+plainOf(n), used.Packets+1
			if !dying && (bytes >= life.rekey.Bytes || packets >= life.rekey.Packets) {
				dying = true
				told++
			}
			bytes, packets = bytes+uint64(n), packets+1
			if hard := (ipsec.Limits{Blocks: 4 * limits.Blocks, Bytes: 4 * limits.Bytes, Packets: 4 * limits.Packets}); over(hard) {
				t.Fatalf("seed %d: %+v passed by %+v", seed, hard, used)
			}
		}
	}
	if refused < 50 || told < 300 {
		t.Errorf("%d sets of limits were refused and %d told of", refused, told)
	}
}

// Of the two ends one begins before the other, in every limit.
func TestOneBegins(t *testing.T) {
	t.Parallel()
	for _, l := range []ipsec.Limits{
		{Time: time.Second, Blocks: 1 << 30}, {Time: 10 * time.Minute, Packets: 400}, {Time: 1500 * time.Millisecond, Bytes: 100_000},
		{Time: 8 * time.Second, Blocks: math.MaxUint64, Bytes: math.MaxUint64, Packets: math.MaxUint64},
	} {
		a, err := lifetimesOf(l, true, 1438)
		b, errB := lifetimesOf(l, false, 1438)
		if err != nil || errB != nil {
			t.Fatalf("%+v: %v, %v", l, err, errB)
		}
		if a.rekeyTime > l.Time || a.rekeyTime >= b.rekeyTime || b.rekeyTime >= b.lifeTime || a.lifeTime != b.lifeTime || a.life != b.life {
			t.Errorf("%+v: %+v and %+v", l, a, b)
		}
		if a.rekey.Bytes > b.rekey.Bytes || a.rekey.Packets >= b.rekey.Packets || b.rekey.Packets > b.life.Packets {
			t.Errorf("%+v: %+v and %+v", l, a, b)
		}
	}
	if _, err := lifetimesOf(ipsec.Limits{Time: 999 * time.Millisecond}, true, 1438); !errors.Is(err, ErrLimits) {
		t.Errorf("less than a second: %v", err)
	}
	// The least that a topology takes, at the usual MTU.
	for _, l := range []ipsec.Limits{{Time: time.Second, Blocks: 1000}, {Time: time.Second, Bytes: 16000}, {Time: time.Second, Packets: 100}} {
		if _, err := lifetimesOf(l, true, 1438); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
