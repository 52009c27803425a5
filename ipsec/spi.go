package ipsec

import (
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
)

// minSPI is the first SPI that is not reserved (RFC 4303 section 2.1).
const minSPI = 256

// SPIs allocates the inbound SPIs of one node, so that no two of its tunnels share one. The zero value is ready.
type SPIs struct {
	Random func() uint32 // nil: the system's

	mu   sync.Mutex
	used map[uint32]bool
}

// Take gives a random SPI that is not in use and none of except. It is the caller's until Release.
func (s *SPIs) Take(except ...uint32) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	random := s.Random
	if random == nil {
		random = systemRandom
	}
	for range 1000 {
		if spi := random(); spi >= minSPI && !s.used[spi] && !slices.Contains(except, spi) {
			if s.used == nil {
				s.used = make(map[uint32]bool)
			}
			s.used[spi] = true
			return spi, nil
		}
	}
	return 0, errors.New("no free SPI found in 1000 random choices")
}

// Release gives an SPI back. One that is not in use is no error.
func (s *SPIs) Release(spi uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.used, spi)
}

func systemRandom() uint32 {
	var b [4]byte
	crand.Read(b[:]) // never fails
	return binary.NativeEndian.Uint32(b[:])
}
