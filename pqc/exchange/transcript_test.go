package exchange

import (
	"crypto/hmac"
	"crypto/sha512"
	"fmt"
	"slices"
	"testing"
)

// TestTranscript follows docs/exchange.md from the messages alone: the parts of each, and what its signatures and MACs
// cover.
func TestTranscript(t *testing.T) {
	t.Parallel()
	for _, mutual := range []bool{false, true} {
		for _, pinned := range []bool{false, true} {
			t.Run(fmt.Sprintf("mutual=%v/pinned=%v", mutual, pinned), func(t *testing.T) {
				t.Parallel()
				suite := mustSuite(t, "mldsa44+mlkem512")
				d := newDuo(t, suite, mutual, pinned)
				binding := slices.Clone(d.initiator.tls.binding)
				var keys schedule
				m := d.messages(t, func(typ messageType, _ []byte) {
					if typ == typeConfirmation {
						keys = *d.responder.session.schedule
					}
				})
				chain := func(before [48]byte, parts ...[]byte) [48]byte {
					return sha512.Sum384(append(before[:], slices.Concat(parts...)...))
				}
				// field is the place after a field with two bytes of length.
				field := func(body []byte, at int) int { return at + 2 + int(body[at])<<8 + int(body[at+1]) }
				signedBy := func(who, label string, at [48]byte, public, signature []byte) {
					t.Helper()
					key, err := suite.Signature.ParsePublicKey(public)
					if err == nil {
						err = key.Verify(slices.Concat([]byte(label), []byte{0}, at[:]), signature)
					}
					if err != nil {
						t.Errorf("%s: %v", who, err)
					}
				}
				authenticated := func(who string, key [48]byte, at [48]byte, got []byte) {
					t.Helper()
					h := hmac.New(sha512.New384, key[:])
					h.Write(at[:])
					if !hmac.Equal(h.Sum(nil), got) {
						t.Errorf("MAC of %s covers something else", who)
					}
				}

				T := chain(sha512.Sum384(binding), m[0])
				header, body := m[1][:4], m[1][4:]
				publicKey := field(body, 1+len(suite.String())+32+4)
				signature := field(body, publicKey)
				T = chain(T, body[:signature])
				signedBy("offer", "pqlab/1 responder signature", T, body[publicKey+2:signature], body[signature+2:])
				T = chain(T, header, body[signature:])

				header, body = m[2][:4], m[2][4:]
				publicKey = field(body, 0)
				signature = field(body, publicKey)
				mac := field(body, signature)
				T = chain(T, body[:signature])
				if mutual {
					signedBy("answer", "pqlab/1 initiator signature", T, body[publicKey+2:signature], body[signature+2:mac])
				}
				T = chain(T, body[signature:mac])
				if T != d.initiator.session.Transcript || T != d.responder.session.Transcript {
					t.Error("the keys are derived from another transcript")
				}
				authenticated("answer", keys.answer, T, body[mac:])
				T = chain(T, header, body[mac:])
				authenticated("confirmation", keys.confirmation, T, m[3][4:])
				authenticated("done", keys.done, chain(T, m[3]), m[4][4:])
			})
		}
	}
}
