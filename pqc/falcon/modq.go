package falcon

// q is the modulus of the scheme (Falcon spec 2.4).
const q = 12289

// divideModQ sets h = g/f modulo q and x^n + 1, where n = len(f) is a power of two from 2 to 1024, and each of h is in
// [0, q). It reports whether f is invertible; if not, h is undefined. Constant in time.
func divideModQ(h []uint16, g, f []int8) bool { return false }
