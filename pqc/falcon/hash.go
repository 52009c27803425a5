package falcon

import "crypto/sha3"

// nonceSize is the length in bytes of the salt r (Falcon spec 3.9: 320 bits).
const nonceSize = 40

// hashToPoint sets c, whose length is the degree, to HashToPoint(nonce ‖ message) (Falcon spec 3.7); each of c is in [0, q).
// Which words of the hash are thrown away shows in its time, and what is hashed is public.
func hashToPoint(c []uint16, nonce, message []byte) {
	var hash sha3.SHAKE
	hash.Write(nonce)
	hash.Write(message)
	var block [136]byte // SHAKE256's rate
	for n := 0; ; {
		hash.Read(block[:])
		for i := 0; i < len(block); i += 2 {
			// 61445 = 5q; of 16 bits the rest would make some remainders more likely.
			if word := uint32(block[i])<<8 | uint32(block[i+1]); word < 5*q {
				c[n] = uint16(word % q)
				if n++; n == len(c) {
					return
				}
			}
		}
	}
}
