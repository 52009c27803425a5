package expiry

import (
	"testing"

	"pqlab/ipsec"
)

// TestNothingIsLost tells more than the channel holds before anybody listens.
func TestNothingIsLost(t *testing.T) {
	t.Parallel()
	q := NewQueue()
	const n = 1000
	for i := range n {
		q.Add(ipsec.Expiry{SPI: uint32(i)})
	}
	for i := range n {
		if x := <-q.Out; x.SPI != uint32(i) {
			t.Fatalf("expiry %d came as number %d", x.SPI, i)
		}
	}
	q.Close()
	if x, ok := <-q.Out; ok {
		t.Errorf("%+v came besides", x)
	}
}

// TestBeforeClose tells, and stops at once: what the channel holds must still come.
func TestBeforeClose(t *testing.T) {
	t.Parallel()
	for range 1000 {
		q := NewQueue()
		for i := range cap(q.out) {
			q.Add(ipsec.Expiry{SPI: uint32(i)})
		}
		q.Close()
		n := 0
		for range q.Out {
			n++
		}
		if n != cap(q.out) {
			t.Fatalf("%d of %d came", n, cap(q.out))
		}
	}
}
