//go:build race

package combine

// stride is every how many bits or bytes a sweep stops. Under the race detector a step takes ten times as long, and finds no
// other races at another bit.
const stride = 11
