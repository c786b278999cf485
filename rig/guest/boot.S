# A 512-byte guest. Prints "B" and then, for ever, a "T" on COM1 after each sector that it wrote: 2048 + (counter & 1023)
# gets the time of day plus the counter, so that the disk keeps changing and no run writes what an earlier one wrote.
.code16
.globl _start
_start:
    ljmp $0, $start
start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb %dl, drive
    movw $0x3fb, %dx
    movb $3, %al
    outb %al, %dx
    sti
    movb $'B', %al
    call print
next:
    incl counter
    movb $0x02, %ah
    int $0x1a
    shll $16, %ecx
    movw %dx, %cx
    addl counter, %ecx
    movl %ecx, %eax
    movw $0x8000, %di
    movw $128, %cx
    cld
    rep stosl
    movl counter, %eax
    andl $0x3ff, %eax
    addl $2048, %eax
    movl %eax, sector
    movb drive, %dl
    movw $0x4300, %ax
    movw $packet, %si
    int $0x13
    movb $'E', %al
    jc report
    movb $'T', %al
report:
    call print
    hlt
    jmp next
print:
    pushw %ax
    movw $0x3fd, %dx
busy:
    inb %dx, %al
    testb $0x20, %al
    jz busy
    popw %ax
    movw $0x3f8, %dx
    outb %al, %dx
    ret
drive:   .byte 0
counter: .long 0
packet:  .byte 16, 0
         .word 1, 0x8000, 0
sector:  .long 0, 0
    .org 510
    .word 0xaa55
