//go:build !race

// The race detector takes memory of its own.

package falcon

import (
	"bytes"
	"testing"
)

func TestVerifyTakesNoMemory(t *testing.T) {
	for _, d := range degrees {
		key, message, padded, unpadded := sample(t, d)
		for _, m := range [][]byte{message, bytes.Repeat(message, 100)} { // the other message is refused at the very end
			if n := testing.AllocsPerRun(100, func() {
				_ = key.Verify(m, padded)
				_ = key.VerifyUnpadded(m, unpadded)
			}); n != 0 {
				t.Errorf("%d, %d bytes: %v allocations", d, len(m), n)
			}
		}
	}
}

func TestSignTakesNoMoreThanItsSignature(t *testing.T) {
	for _, d := range degrees {
		key := sampleKey(t, d)
		message := make([]byte, 1000)
		for name, sign := range map[string]func([]byte) ([]byte, error){"padded": key.Sign, "unpadded": key.SignUnpadded} {
			if n := testing.AllocsPerRun(20, func() {
				if _, err := sign(message); err != nil {
					t.Fatal(err)
				}
			}); n > 1 {
				t.Errorf("%d, %s: %v allocations", d, name, n)
			}
		}
	}
}
