package main

import (
	"bytes"
	"testing"
)

const header = "\x00asm\x01\x00\x00\x00"

func TestTheLimitsOfTheMemoryAreSet(t *testing.T) {
	// An empty type section, a memory of 34 pages and no maximum, an empty export section.
	module := []byte(header + "\x01\x01\x00" + "\x05\x03\x01\x00\x22" + "\x07\x01\x00")
	fixed, err := fix(module, 512)
	want := header + "\x01\x01\x00" + "\x05\x06\x01\x01\x80\x04\x82\x04" + "\x07\x01\x00"
	if err != nil || !bytes.Equal(fixed, []byte(want)) {
		t.Fatalf("%x %v", fixed, err)
	}
	if again, err := fix(fixed, 512); err != nil || !bytes.Equal(again, fixed) {
		t.Fatalf("%x %v", again, err)
	}
	if _, err := fix(module, 33); err == nil {
		t.Fatal("the program needs more to start")
	}
	if _, err := fix(module, 1<<16); err == nil {
		t.Fatal("no module can have that much")
	}
}

func TestWhatIsNoModuleIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "text", header, header + "\x05", header + "\x05\x09\x01", header + "\x05\x01\x00", header + "\x05\x03\x02\x00\x01",
		header + "\x05\x03\x01\x04\x01", header + "\x05\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
	} {
		if _, err := fix([]byte(text), 512); err == nil {
			t.Errorf("%x", text)
		}
	}
}
