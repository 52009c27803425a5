package falcon

import "math/bits"

// Long integers, least significant word first, of a fixed number of words: those that are signed in two's complement. The
// time of all functions depends on the number of words alone.

// addMul adds factor·y to x, of as many words, and returns the word that is carried out.
func addMul(x, y []uint64, factor uint64) uint64 {
	var carry uint64
	y = y[:len(x)]
	for i := range x {
		high, low := bits.Mul64(y[i], factor)
		low, c := bits.Add64(low, carry, 0)
		high += c
		x[i], c = bits.Add64(x[i], low, 0)
		carry = high + c
	}
	return carry
}

// mulSmall multiplies x by a factor; what is carried out is lost.
func mulSmall(x []uint64, factor uint64) {
	var carry uint64
	for i := range x {
		high, low := bits.Mul64(x[i], factor)
		var c uint64
		x[i], c = bits.Add64(low, carry, 0)
		carry = high + c
	}
}

// subIf subtracts y from x if the mask is all ones, and nothing if it is 0.
func subIf(x, y []uint64, mask uint64) {
	var borrow uint64
	y = y[:len(x)]
	for i := range x {
		x[i], borrow = bits.Sub64(x[i], y[i]&mask, borrow)
	}
}

// negateIf negates x if the mask is all ones, and leaves it if it is 0.
func negateIf(x []uint64, mask uint64) {
	carry := mask & 1
	for i := range x {
		x[i], carry = bits.Add64(x[i]^mask, 0, carry)
	}
}

// centreBig subtracts the odd modulus from x if x is greater than half of it; x is less than it.
func centreBig(x, modulus []uint64) {
	// Twice x, which may have a bit more, minus the modulus.
	var borrow, top uint64
	modulus = modulus[:len(x)]
	for i, word := range x {
		_, borrow = bits.Sub64(word<<1|top, modulus[i], borrow)
		top = word >> 63
	}
	_, borrow = bits.Sub64(top, 0, borrow)
	subIf(x, modulus, borrow-1)
}

// shiftLeft multiplies x by 2^count, count < 64; what is shifted out is lost.
func shiftLeft(x []uint64, count uint) {
	var low uint64
	for i, word := range x {
		x[i] = word<<count | low
		low = word >> (64 - count) // 0 if count is 0
	}
}

// subSmall subtracts y from x.
func subSmall(x []uint64, y uint64) {
	for i := range x {
		x[i], y = bits.Sub64(x[i], y, 0)
	}
}

// inverseWord is 1/x modulo 2^64; x is odd.
func inverseWord(x uint64) uint64 {
	inverse := x // right in 3 bits, which each round doubles
	for range 5 {
		inverse *= 2 - x*inverse
	}
	return inverse
}

// subShifted subtracts y·2^count from x, both in two's complement.
func subShifted(x, y []uint64, count int) {
	var low, borrow uint64
	top, shift := sign(y), uint(count%64)
	x = x[min(count/64, len(x)):]
	for i := range x {
		word := top
		if i < len(y) {
			word = y[i]
		}
		x[i], borrow = bits.Sub64(x[i], word<<shift|low, borrow)
		low = word >> (64 - shift)
	}
}
