package gateway

import (
	"testing"

	"pqlab/ipsec"
)

// TestExpiriesAreNotLost tells more than the channel holds before anybody listens.
func TestExpiriesAreNotLost(t *testing.T) {
	e := newExpiries()
	go e.run()
	const n = 1000
	for i := range n {
		e.add(ipsec.Expiry{SPI: uint32(i)})
	}
	for i := range n {
		if x := <-e.out; x.SPI != uint32(i) {
			t.Fatalf("expiry %d came as number %d", x.SPI, i)
		}
	}
	close(e.stop)
	if x, ok := <-e.out; ok {
		t.Errorf("%+v came besides", x)
	}
}

// TestExpiriesBeforeClose tells, and stops at once: what the channel holds must still come.
func TestExpiriesBeforeClose(t *testing.T) {
	for range 1000 {
		e := newExpiries()
		go e.run()
		for i := range cap(e.out) {
			e.add(ipsec.Expiry{SPI: uint32(i)})
		}
		close(e.stop)
		n := 0
		for range e.out {
			n++
		}
		if n != cap(e.out) {
			t.Fatalf("%d of %d came", n, cap(e.out))
		}
	}
}
