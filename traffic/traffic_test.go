package traffic

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.IPv6Loopback()
)

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("still not so after two minutes: %s", what)
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
}

func needIPv6(t *testing.T) {
	t.Helper()
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 on this machine's loopback: %v", err)
	}
	c.Close()
}

func TestClock(t *testing.T) {
	t.Parallel()
	c := newClock()
	for range 100 {
		before, fast, after := Now(), c.now(), Now()
		// The offset was measured within a bracket; a pre-empted thread makes that wide, but not milliseconds.
		if fast < before.Add(-time.Millisecond) || fast > after.Add(time.Millisecond) {
			t.Fatalf("clock says %d between %d and %d", fast, before, after)
		}
	}
	now := time.Now()
	if d := InstantOf(now.Add(time.Hour)).Sub(InstantOf(now)); d < time.Hour-time.Millisecond || d > time.Hour+time.Millisecond {
		t.Fatalf("an hour is %v", d)
	}
}

// TestNothingIsLeft opens everything, ends its context in the middle of the load and waits for the goroutines to go.
func TestNothingIsLeft(t *testing.T) { // not parallel: it counts goroutines
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(context.Background())
	usink, err := ListenUDP(ctx, UDPSinkConfig{Listen: netip.AddrPortFrom(loopback4, 0)})
	if err != nil {
		t.Fatal(err)
	}
	tsink, err := ListenTCP(ctx, netip.AddrPortFrom(loopback4, 0))
	if err != nil {
		t.Fatal(err)
	}
	relay, err := ListenRelay(ctx, netip.AddrPortFrom(loopback4, 0), tsink.Addr(), netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() {
		_, err := UDPSource{To: usink.Addr(), Rate: 1e6, FrameSize: 100}.Run(ctx)
		done <- err
	}()
	go func() {
		// The sink goes with the same context, so this one may fail; it must end.
		_, _ = TCPSource{To: relay.Addr(), Streams: 3}.Run(ctx)
		done <- nil
	}()
	eventually(t, "load arrives", func() bool { return usink.Received() > 10 && tsink.Received() > 1<<20 })
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
	for _, c := range []interface{ Close() error }{usink, tsink, relay} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestResultAsJSON(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(Result{Latency: &Latency{}, Bins: []Bin{{}}, Losses: []Loss{{}}})
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"from", "to", "proto", "streams", "sent", "received", "lost", "duplicated", "reordered",
		"bits_per_second", "duration", "latency_us", "bins", "losses", "socket_drops"} {
		if _, ok := m[k]; !ok {
			t.Errorf("no %q in %s", k, b)
		}
	}
	for _, k := range []string{"p50", "p90", "p99", "max", "mean"} {
		if _, ok := m["latency_us"].(map[string]any)[k]; !ok {
			t.Errorf("no latency_us.%q in %s", k, b)
		}
	}
}
