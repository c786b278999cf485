# A guest for a machine with two disks and 16 MB of memory, which proves that disks and memory are of one instant.
#
# It starts from the first disk. Each round counts one up, writes the record of that count to both disks, the first one
# first, remembers the count in a memory page of its own, prints it on COM1 ("0000002a" and a line end), and looks back:
# the place about to be overwritten has to hold the record of 1024 rounds ago, and one of the last 1024 records has to be
# the same in memory and on both disks. Started from power-off, it looks at all records first, lets the second disk catch
# up if it is one round behind, prints "B" and the count at which it goes on.
#
# Prints "X", a letter and a count where something is not as it should be: "D" a disk's record, "M" memory, "E" the disk
# itself, "S" the start. It never stops because of that.
#
# A record has 128 little-endian words: "VRSR", count, disk (1, 2), 124 words that follow from these two, and the checksum
# of all before it. Count n is in sector 2048 + n % 1024. crates/testkit/src/guest_records.rs knows the same.
.code16
.set RECORDS, 1024
.set FIRST_SECTOR, 2048
.set MAGIC, 0x52535256
.set EXPECTED, 0x9000
.set FOUND, 0x9200
.set PAGES, 0x100000
.set ROUNDS_PER_NAP, 32
.globl _start
_start:
    ljmp $0, $start
start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movw $0x3fb, %dx
    movb $3, %al
    outb %al, %dx
    inb $0x92, %al
    orb $2, %al
    outb %al, $0x92
    sti
    cld
    movw $rest_of_program, %si
    movb $0x80, %dl
    movb $0x42, %ah
    int $0x13
    jnc main
    movb $'S', %bl
    call complain
    hlt
rest_of_program:
    .byte 16, 0
    .word SECTORS, 0x7e00, 0
    .long 1, 0

# Prints "X", the letter in BL and the count in EAX.
complain:
    pushal
    pushl %eax
    movb $'X', %al
    call print
    movb %bl, %al
    call print
    popl %eax
    call print_count
    popal
    ret

# Prints EAX and a line end.
print_count:
    pushal
    movl %eax, %ebx
    movw $8, %cx
digit:
    roll $4, %ebx
    movb %bl, %al
    andb $15, %al
    addb $'0', %al
    cmpb $'9', %al
    jbe decimal
    addb $('a' - '9' - 1), %al
decimal:
    call print
    loop digit
    movb $'\n', %al
    call print
    popal
    ret

print:
    pushw %dx
    pushw %ax
    movw $0x3fd, %dx
busy:
    inb %dx, %al
    testb $0x20, %al
    jz busy
    popw %ax
    movw $0x3f8, %dx
    outb %al, %dx
    popw %dx
    ret

    .org 510
    .word 0xaa55

main:
    call survey
    movb $'B', %al
    call print
    movl count, %eax
    call print_count
    movl count, %eax
    movl %eax, started_at
round:
    incl count
    movb $1, disk
    call overwrite
    movb $2, disk
    call overwrite
    call remember
    movl count, %eax
    call print_count
    call look_back
    testl $(ROUNDS_PER_NAP - 1), count
    jnz round
    hlt
    jmp round

# Writes the record of this round to the disk, whose place has to hold the record of 1024 rounds ago.
overwrite:
    movl count, %eax
    subl $RECORDS, %eax
    call check_record
    movl count, %eax
    jmp write_record

# Puts the count into its page of memory.
remember:
    call reach_all_memory
    movl count, %eax
    call page_of
    addr32 movl $MAGIC, %fs:(%edi)
    addr32 movl %eax, %fs:4(%edi)
    notl %eax
    addr32 movl %eax, %fs:8(%edi)
    ret

# Looks at one of the last 1024 rounds, each time at another one.
look_back:
    incl distance
    andl $(RECORDS - 1), distance
    movl count, %eax
    subl distance, %eax
    jbe nothing_there
    call check_memory
    movb $1, disk
    call check_record
    movb $2, disk
    call check_record
nothing_there:
    ret

# Memory has to hold the count EAX, unless that is of before the start.
check_memory:
    cmpl started_at, %eax
    jbe of_before
    call reach_all_memory
    call page_of
    addr32 cmpl $MAGIC, %fs:(%edi)
    jne forgotten
    addr32 cmpl %eax, %fs:4(%edi)
    jne forgotten
    notl %eax
    addr32 cmpl %eax, %fs:8(%edi)
    notl %eax
    je of_before
forgotten:
    movb $'M', %bl
    call complain
of_before:
    ret

# EDI becomes the address of the page for the count EAX.
page_of:
    movl %eax, %edi
    andl $(RECORDS - 1), %edi
    shll $12, %edi
    addl $PAGES, %edi
    ret

# The disk has to hold the record of the count EAX; with a count below 1 nothing may have been written there.
check_record:
    pushal
    call read_sector
    cmpl $0, %eax
    jle check_blank
    call make_record
    call compare
    je record_checked
record_is_wrong:
    movb $'D', %bl
    call complain
record_checked:
    popal
    ret
check_blank:
    cmpl $0, FOUND
    jne record_is_wrong
    popal
    ret

# Whether EXPECTED and FOUND are equal, in the zero flag.
compare:
    pushw %cx
    movw $EXPECTED, %si
    movw $FOUND, %di
    movw $128, %cx
    repe cmpsl
    popw %cx
    ret

# Makes the record of the count EAX for the disk.
make_record:
    pushal
    movw $EXPECTED, %di
    movl $MAGIC, (%di)
    movl %eax, 4(%di)
    movzbl disk, %ebx
    movl %ebx, 8(%di)
    imull $0x9e3779b1, %eax, %eax
    addl %ebx, %eax
    addw $12, %di
    movw $124, %cx
fill:
    imull $1664525, %eax, %eax
    addl $1013904223, %eax
    stosl
    loop fill
    movw $EXPECTED, %si
    movw $127, %cx
    xorl %ebx, %ebx
sum:
    lodsl
    roll $5, %ebx
    addl %eax, %ebx
    loop sum
    movl %ebx, (%di)
    popal
    ret

# Reads the place of the count EAX into FOUND.
read_sector:
    movw $FOUND, packet_buffer
    movb $0x42, packet_function
    jmp transfer

write_record:
    call make_record
    movw $EXPECTED, packet_buffer
    movb $0x43, packet_function
transfer:
    pushal
    movl %eax, %ebp
    movw $4, tries
# The BIOS gives a command up whose time runs out, and time jumps when a machine is resumed.
try:
    movl %ebp, %eax
    andl $(RECORDS - 1), %eax
    addl $FIRST_SECTOR, %eax
    movl %eax, packet_sector
    movb disk, %dl
    addb $0x7f, %dl
    movb packet_function, %ah
    xorb %al, %al
    movw $packet, %si
    int $0x13
    cld
    jnc transferred
    movw $1, packet_sectors
    decw tries
    jnz try
    movl %ebp, %eax
    movb $'E', %bl
    call complain
transferred:
    popal
    ret

# What the disks hold when the machine was off: each record has to be whole, and the second disk has all that the first
# one has but the newest.
survey:
    movb $2, disk
    call newest
    movl %eax, second_newest
    movb $1, disk
    call newest
    movl %eax, count
    cmpl second_newest, %eax
    je surveyed
    movl second_newest, %ebx
    incl %ebx
    cmpl %ebx, %eax
    je catch_up
    movb $'S', %bl
    call complain
catch_up:
    movb $2, disk
    call write_record
surveyed:
    ret

# EAX becomes the highest count on the disk, 0 if there is none.
newest:
    xorl %ebx, %ebx
    xorl %ecx, %ecx
look_at_place:
    movl %ecx, %eax
    call read_sector
    cmpl $0, FOUND
    je next_place
    movl FOUND + 4, %eax
    call make_record
    call compare
    je is_it_newest
    pushl %ebx
    movb $'D', %bl
    call complain
    popl %ebx
    jmp next_place
is_it_newest:
    cmpl %ebx, %eax
    jbe next_place
    movl %eax, %ebx
next_place:
    incl %ecx
    cmpl $RECORDS, %ecx
    jb look_at_place
    movl %ebx, %eax
    ret

# FS reaches all memory until the BIOS loads it, hence again each time.
reach_all_memory:
    pushal
    cli
    lgdt gdt_pointer
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    movw $8, %bx
    movw %bx, %fs
    andb $0xfe, %al
    movl %eax, %cr0
    xorw %bx, %bx
    movw %bx, %fs
    sti
    popal
    ret
gdt:
    .quad 0, 0x00cf92000000ffff
gdt_pointer:
    .word 15
    .long gdt

count:           .long 0
started_at:      .long 0
second_newest:   .long 0
distance:        .long 0
disk:            .byte 0
packet_function: .byte 0
tries:           .word 0
packet:          .byte 16, 0
packet_sectors:  .word 1
packet_buffer:   .word 0, 0
packet_sector:   .long 0, 0
    .balign 512
end:
.set SECTORS, (end - main) / 512
