package traffic

import (
	"errors"
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func here(f func() error) error { return f() }

func probing(t *testing.T, size int) *Prober {
	t.Helper()
	p, err := NewProber(here, here, netip.MustParseAddrPort("127.0.0.1:0"), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// What nothing happens to comes, once and in order, and never before it was sent.
func TestProber(t *testing.T) {
	t.Parallel()
	for _, size := range []int{4, 100, 9000} {
		p := probing(t, size)
		const n = 40
		if err := errors.Join(p.Send(t.Context(), n/2, 0), p.Send(t.Context(), n/2, 100*time.Microsecond)); err != nil {
			t.Fatal(err)
		}
		got, err := p.Settle(t.Context(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		late, repeated := got.Overtaken()
		if len(got.Arrived) != n || len(got.Sent) != n || got.Missing() != 0 || got.Bursts() != 0 || late+repeated+got.Damaged != 0 || got.Delays()[0] < 0 {
			t.Errorf("%d bytes: %+v", size, got)
		}
	}
	if _, err := NewProber(here, here, netip.MustParseAddrPort("127.0.0.1:0"), 3); err == nil {
		t.Error("a probe without room for its number")
	}
}

// What comes otherwise than it was sent is no arrival.
func TestProberDamaged(t *testing.T) {
	t.Parallel()
	p := probing(t, 100)
	if err := p.Send(t.Context(), 2, 0); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{p.append(nil, 1)[:99], append(p.append(nil, 1), 0), p.append(nil, 2), append(p.append(nil, 1)[:99], 'x'), {}} {
		if _, err := p.Socket().Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := p.Settle(t.Context(), time.Second); err != nil || len(got.Arrived) != 2 || got.Damaged != 5 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A full socket is told: what it refused was not lost on the way.
func TestProberFull(t *testing.T) {
	t.Parallel()
	p := probing(t, 1000)
	if err := control(p.to, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1) }); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock() // the reader stops at the first
	for range 100 {
		if _, err := p.Socket().Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	p.mu.Unlock()
	if _, err := p.Settle(t.Context(), 100*time.Millisecond); !errors.Is(err, ErrReceiver) {
		t.Errorf("%v", err)
	}
}

func TestFates(t *testing.T) {
	t.Parallel()
	f := Fates{Sent: make([]time.Time, 8)}
	for i, number := range []int{0, 3, 2, 3, 2, 6} {
		f.Arrived = append(f.Arrived, Arrival{Number: number, Delay: time.Duration(9 - i)})
	}
	if late, repeated := f.Overtaken(); late != 1 || repeated != 2 {
		t.Errorf("%d overtaken, %d repeated", late, repeated)
	}
	if want := []bool{false, true, false, false, true, true, false, true}; !slices.Equal(f.Lost(), want) || f.Missing() != 4 || f.Bursts() != 3 {
		t.Errorf("lost %v, %d in %d bursts", f.Lost(), f.Missing(), f.Bursts())
	}
	if d := f.Delays(); !slices.IsSorted(d) || len(d) != 6 || d[0] != 4 {
		t.Errorf("delays %v", d)
	}
}

// The interval is that of the distribution: by hand for few draws, by its normal limit for many.
func TestLikely(t *testing.T) {
	t.Parallel()
	for k, want := range []float64{1.0 / 1024, 11.0 / 1024, 56.0 / 1024} {
		if got := atMost(k, 10, 0.5); math.Abs(got-want) > 1e-12 {
			t.Errorf("at most %d of 10: %v, want %v", k, got, want)
		}
	}
	const n, p = 20000, 0.01
	mean, sigma := n*p, math.Sqrt(n*p*(1-p))
	for _, tt := range []struct {
		sigmas float64
		want   bool
	}{{0, true}, {3, true}, {-3, true}, {3.7, false}, {-3.6, false}} {
		if got := Likely(int(math.Round(mean+tt.sigmas*sigma)), n, p, 0.001); got != tt.want {
			t.Errorf("%+.1f standard deviations: %v", tt.sigmas, got)
		}
	}
	for _, tt := range []struct {
		k    int
		p    float64
		want bool
	}{{0, 0, true}, {1, 0, false}, {10, 1, true}, {9, 1, false}, {10, 0.5, true}, {0, 0.5, true}} {
		if got := Likely(tt.k, 10, tt.p, 0.001); got != tt.want {
			t.Errorf("%d of 10 with %v: %v", tt.k, tt.p, got)
		}
	}
}
