//go:build !race

package handshake

// stride is every how many bytes a sweep stops: at each.
const stride = 1
