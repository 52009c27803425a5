package agent

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// collector keeps what a node exports.
type collector struct {
	mu  sync.Mutex
	all Exported
}

func (c *collector) take(e Exported) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all.Until = e.Until
	c.all.TLS = append(c.all.TLS, e.TLS...)
	c.all.SAs = append(c.all.SAs, e.SAs...)
}

// until waits until everything that has happened by now is there.
func (c *collector) until(t *testing.T, now time.Time) Exported {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		all := c.all
		c.mu.Unlock()
		if all.Until.After(now) {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatal("the node does not say that it has told everything")
		}
	}
}

// A capture is given the secrets of what happens while it runs, each once, and those that it asked for only.
func TestExport(t *testing.T) {
	t.Parallel()
	a, b := pair(t, Config{Reveal: true}, nil)
	if _, err := a.Establish(t.Context(), "ab"); err != nil {
		t.Fatal(err)
	}
	first, err := b.Secrets(t.Context(), "ab")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{a, b} {
		if len(n.server.exports.asked) != 0 {
			t.Fatal("secrets are kept that nobody asked for")
		}
	}
	var both [2]collector
	var onlyTLS collector
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var ends []<-chan error
	for _, x := range []struct {
		n    *node
		what Export
		to   *collector
	}{{a, Export{TLS: true, SAs: true}, &both[0]}, {b, Export{TLS: true, SAs: true}, &both[1]}, {b, Export{TLS: true}, &onlyTLS}} {
		end, err := x.n.Export(ctx, x.what, x.to.take)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	if _, err := a.Rekey(t.Context(), "ab"); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	atA, atB, third := both[0].until(t, now), both[1].until(t, now), onlyTLS.until(t, now)
	if len(atA.TLS) != 0 || bytes.Count(atB.TLS, []byte("\n")) != 4 || !bytes.Equal(atB.TLS, third.TLS) || len(third.SAs) != 0 {
		t.Errorf("key log of %d, %d and %d bytes, SAs %d", len(atA.TLS), len(atB.TLS), len(third.TLS), len(third.SAs))
	}
	for i, n := range []*node{a, b} {
		sas := []Exported{atA, atB}[i].SAs
		s, err := n.Secrets(t.Context(), "ab")
		if err != nil {
			t.Fatal(err)
		}
		if len(sas) != 1 || sas[0].SPI != s.In.SPI || !bytes.Equal(sas[0].Key, s.In.Key) || !bytes.Equal(sas[0].Salt, s.In.Salt) || sas[0].Tunnel != "ab" {
			t.Errorf("SAs %v, installed %v", sas, s.In)
			continue
		}
		if i == 1 && sas[0].Replaces != first.In.SPI {
			t.Errorf("replaces %#x, want %#x", sas[0].Replaces, first.In.SPI)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			if text := fmt.Sprintf(verb, sas[0]); text != fmt.Sprintf("SA %#08x", sas[0].SPI) {
				t.Errorf("%s prints %s", verb, text)
			}
		}
	}
	if sas := atA.SAs; len(sas) == 1 && (sas[0].Src != atB.SAs[0].Dst || sas[0].Dst != atB.SAs[0].Src || sas[0].Src == sas[0].Dst) {
		t.Errorf("addresses %v to %v", sas[0].Src, sas[0].Dst)
	}

	stop()
	for _, end := range ends {
		if err := <-end; err != nil {
			t.Error(err)
		}
	}
	for _, n := range []*node{a, b} {
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			n.server.exports.mu.Lock()
			left := len(n.server.exports.asked)
			n.server.exports.mu.Unlock()
			if left == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("secrets are still kept when nobody wants them")
			}
		}
	}
}

// What is not taken does not grow without end, and is counted.
func TestExportMissed(t *testing.T) {
	t.Parallel()
	var e exports
	x := e.open(Export{TLS: true})
	for range maxExported + 3 {
		if _, err := e.Write([]byte("line\n")); err != nil {
			t.Fatal(err)
		}
	}
	out := e.take(x)
	if out.Missed != 3 || len(out.TLS) != 5*maxExported {
		t.Errorf("missed %d, %d bytes", out.Missed, len(out.TLS))
	}
	if _, err := e.Write([]byte("more\n")); err != nil {
		t.Fatal(err)
	}
	if out := e.take(x); out.Missed != 3 || !slices.Equal(out.TLS, []byte("more\n")) {
		t.Errorf("missed %d, %q", out.Missed, out.TLS)
	}
	e.close(x)
	if len(e.asked) != 0 {
		t.Error("still asked for")
	}
}
