package falcon

// nonceSize is the length in bytes of the salt r (Falcon spec 3.9: 320 bits).
const nonceSize = 40

// hashToPoint sets c, whose length is the degree, to HashToPoint(nonce, message) (Falcon spec 3.7); each of c is in [0, q).
func hashToPoint(c []uint16, nonce, message []byte) {}
