package ipsec

import (
	"math"
	"testing"
	"time"
)

func TestBlocks(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]uint64{0: 0, 1: 1, 15: 1, 16: 1, 17: 2, 32: 2, 100: 7, 1420: 89, 65535: 4096} {
		if got := Blocks(n); got != want {
			t.Errorf("Blocks(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	const most = math.MaxUint64
	for _, tt := range []struct{ given, soft, late, hard Limits }{
		{
			Limits{},
			Limits{Time: 10 * time.Minute, Blocks: 1 << 30},
			Limits{Time: 11*time.Minute + 15*time.Second, Blocks: 1<<30 + 1<<27},
			Limits{Time: 12*time.Minute + 30*time.Second, Blocks: 1 << 32},
		},
		{
			Limits{Time: time.Second, Blocks: 1, Bytes: 100, Packets: 8},
			Limits{Time: time.Second, Blocks: 1, Bytes: 100, Packets: 8},
			Limits{Time: 1125 * time.Millisecond, Blocks: 2, Bytes: 113, Packets: 9},
			Limits{Time: 61 * time.Second, Blocks: 4, Bytes: 400, Packets: 32},
		},
		{
			Limits{Time: time.Hour, Blocks: most, Bytes: most / 2, Packets: 1},
			Limits{Time: time.Hour, Blocks: most, Bytes: most / 2, Packets: 1},
			Limits{Time: 67*time.Minute + 30*time.Second, Blocks: most, Bytes: most/2 + 1<<60, Packets: 2},
			Limits{Time: 75 * time.Minute, Blocks: most, Bytes: most, Packets: 4},
		},
	} {
		soft := tt.given.withDefaults()
		if soft != tt.soft {
			t.Errorf("%+v with defaults: %+v", tt.given, soft)
		}
		if got := soft.late(); got != tt.late {
			t.Errorf("%+v late: %+v, want %+v", soft, got, tt.late)
		}
		if got := soft.hard(); got != tt.hard {
			t.Errorf("%+v hard: %+v, want %+v", soft, got, tt.hard)
		}
	}
}

func TestSPIs(t *testing.T) {
	t.Parallel()
	var ready SPIs // the zero value works, with the system's randomness
	seen := make(map[uint32]bool)
	for range 1000 {
		spi, err := ready.Take()
		if err != nil || spi < 256 || seen[spi] {
			t.Fatalf("SPI %#x: %v", spi, err)
		}
		seen[spi] = true
	}

	next := uint32(250)
	few := SPIs{Random: func() uint32 { next++; return 250 + next%10 }} // 250 to 259
	for _, except := range []uint32{0, 256} {
		var got []uint32
		for range 20 {
			spi, err := few.Take(except)
			if err != nil {
				break
			}
			got = append(got, spi)
		}
		want := 4
		if except == 256 {
			want = 3
		}
		if len(got) != want {
			t.Errorf("except %d: %v, want %d of 256 to 259", except, got, want)
		}
		for _, spi := range got {
			few.Release(spi)
		}
		few.Release(1) // not in use
	}
}
