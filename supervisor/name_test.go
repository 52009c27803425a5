package supervisor

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestCheckName(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"pair": true, "east-west": true, "A.b_c-9": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a/b": false, "a b": false, "a\nb": false, "a\x00": false, "ä": false, "@": false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestParseSockets(t *testing.T) {
	t.Parallel()
	const table = `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 101 @pqlab/1001/pair
0000000000000000: 00000003 00000000 00000000 0001 03 102 @pqlab/1001/connected
0000000000000000: 00000002 00000000 00010000 0001 01 103
0000000000000000: 00000002 00000000 00010000 0001 01 104 /run/pqlab/1001/file
0000000000000000: 00000002 00000000 00010000 0001 01 105 @pqlab/0/a b
0000000000000000: 00000002 00000000 00010000 0001 01 106 @pqlab/01/zero
0000000000000000: 00000002 00000000 00010000 0001 01 107 @pqlab/+1/plus
0000000000000000: 00000002 00000000 00010000 0001 01 108 @pqlab/1/x/y
0000000000000000: 00000002 00000000 00010000 0001 01 109 @pqlab/1/
0000000000000000: 00000002 00000000 00010000 0001 01 110 @pqlab/1/nul@
0000000000000000: 00000002 00000000 00010000 0001 01 x @pqlab/1/inode
0000000000000000: 00000002 00000000 00010000 0001 01 111 @pqlab/0/east-west
`
	got, err := parseSockets(strings.NewReader(table))
	want := []socket{{1001, "pair", 101}, {0, "east-west", 111}}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %v, %v, want %v", got, err, want)
	}
}

func FuzzParseSockets(f *testing.F) {
	f.Add("Num\n0: 2 0 00010000 1 01 5 @pqlab/7/pair\n")
	f.Fuzz(func(t *testing.T, table string) {
		found, _ := parseSockets(strings.NewReader(table))
		for _, s := range found {
			if CheckName(s.name) != nil || !strings.Contains(table, s.address()) {
				t.Errorf("%+v", s)
			}
		}
	})
}

func TestNameIsTakenOnce(t *testing.T) {
	t.Parallel()
	name := unique(t)
	l, err := claim(name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := claim(name); !errors.Is(err, ErrExists) || errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("a second lab of the name: %v", err)
	}
	l.Close()
	again, err := claim(name)
	if err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	again.Close()
}
