"""A data directory of format 1, as the last version that wrote it left it: killed, after one orderly stop.

Two segments of 16 KiB, of records of version 1; :data:`WRITES` is what they say, :func:`version_1` the disk.
"""

import base64
import zlib

from paxos_rsm.paxos.ready import Write, WriteAccepted, WriteDecided, WriteDecidedThrough, WritePromise
from paxos_rsm.paxos.types import Ballot, Batch, Noop
from paxos_rsm.storage.memory import MemoryFiles

WRITES: list[Write] = [
    WritePromise(Ballot(2, 7)),
    WriteAccepted(1, Ballot(2, 7), Batch(b"first")),
    WriteAccepted(2, Ballot(2, 7), Batch(b"z" * 5000 + bytes(600))),
    WriteDecided(3, Noop()),
    WriteDecidedThrough(2),
    WriteAccepted(4, Ballot(3, 9), Batch(b"abc" * 2000)),
    WriteDecidedThrough(3),
    WritePromise(Ballot(5, 9)),
]
"""Of the member 11, called n1, of cluster 1."""


def version_1(path: str) -> MemoryFiles:
    """A disk with that directory at ``path``, which is one name long."""
    files = MemoryFiles()
    files.mkdir(path)
    files.mkdir(f"{path}/log")
    for name, text in _FILES.items():
        data = zlib.decompress(base64.b85decode("".join(text.split())))
        file = files.create(f"{path}/{name}", len(data))
        file.pwrite(data, 0)
        file.fdatasync()
    for directory in ("/", path, f"{path}/log"):
        files.sync_directory(directory)
    return files


_FILES = {
    "identity": """
        c-kvStjI5pFDlMe$V^GiE6FUW<YEwIU|_JH&acA3D8MMet;CdPsQGncs*>uO+a3l?0CdF;3j
    """,
    "log/0000000000000001.log": """
        c-rmR<yTa1y9aPO2I)q+rBPZMBqRoq7)rWfr~#!zKqRHRWk5OwM!H+NQ@RltLW%S6oX0o6f8ea=togjT*4o$oz4u=G-F@A&E@tl?
        oo)D$k^V#ae+#_Yijk#kQEAow*Bqau*~s61Sa3l7!Y><PBm@Km1Ox;G1Ox;G1Ox<x{~EJ4&Q|X9&R`V8uRuURKtMo1KtMo1KtMqF
        e``|f{WiwGD)K*`Ki=~{R$e?vXIGJN1^^8Ug#Z%@T}q05mo*Qrf6S5otN+ir!DIiiQfI%gc+3$IV<8j$J4=O)g+hdGZRh3=fkL4P
        <HbmS_c{O9MyUVE|K0Dg|M*QJF$t89``mMuop|T&1AA%eGi!$7d$GA~Q0s#Or@-sFPn$jwmUCFkw_2tOs<BIhBEeZA+Iv&VRaNxt
        *QcwfPqq#Wh6G5glUl^*!x(Feo<=WleM3@jf3W0Jtx7c~BdSBfm#QLUB=$Y>o36KPORLbGhEw|KE28#l$7-T}k}smnJH9DQ4uUqf
        7E~~j29PM)`81_*-<RL!bzUl=E3<$gYMZ2!x}f$*;EEL0M_NF<qK=v<0cHFG97oE>tPRcxJX>zYmYFF0E=B9elGZb{Ryry1oMA>|
        Li+)=THGGo!=|GXQ1ffnpdvmaKb>#u&6qiv{Z^;wiBJ$<lB8z!%B4-*q6J3zBqmL15iJ^{6z;cR5U?TTjraT>yi<C-#X4JAr*{gn
        @rB~Ua?hMQK-cf!aIQ`-$K<Y1y~gJ3ic2Q=jXicl7-yZYq9--MS0@d*W1O!)11VVz(h7>Vs{HRqEkeD|A)zO#hl&i53m~7xKd;1^
        `b@itw-lY)M$adQ(psXohC|5HsJB&Fc|-$cPd8DinOZ)&ZySHbYT$_}3%~+Y#9J)MEqzrE;+{|D*~{J8();Ko@azPgqbdxw9i6vc
        ZbUP_<9T?P$qi@gE1Z6mD6~(w5i0~NiF4s2!S`dkxJ{XyYuhY!_IDTz<W=%Q%5VH+J`2w!#?y%#k`t?2eHospVl@z8)P4CfRW4uq
        cW%gU29HrKht<Btmet&bqQ-~0sF{;^9wd3o-=c9rX%>#28?E0qt|?eiUC#-{uU=r9sHt^Ug&TMheLtKP01Z%^N@Qf0d|2QOVP;GK
        vVC3M>{VY^Qbo^*R1U35UB)&1-i$}`e)ZC2yvJ*Rn22SwIWaZEuVliG9M`Csq_J|GuAHx{>y2wxlf3vAn?TBbM-EgH!(xK$xbFTX
        6l8e0<V5Z-gzE=1DFNx#H@d8i>5liL(2M-x(W$r&id#AVSbE(ub-ofp*!j7TfJgDLlL7mK)|(y~-W{p_vCBiL>EMeS$eBD-5fNJL
        &psq|!@YI1@=a{qg0+}lovl<W{V<IEsQDW43i&=<&i%Oz(euiI(u<2g0@vUp^-*Uy&S=uJ4^KJK)*NzTGxv0TMc-<L!Ko})PCZgh
        AHG_}#r6_6F?C-FBI)4k&X%#|P}woaioLErd>7q1?(&W;gR9tekW2x3Vr;LbPIH9ELF41EtVk!e>s_?zG^WGq>|Ge%AQVRv!oV3Q
        TbrMqMEpaY9Gm@p*;<o|iT<n$fPQ1iNzf557s}d?M|U5WvfvVSD(GAmZ#hlJ-T21d7Rz_{n)f>VH<nJd`MawF6%D8F40qu2g(T$h
        u{Alhuq2!-67GS9MoFJCVMZ7g>DPckb-br!U~AGO-W2SezKSy2Irqjz)eMh%H>01*#$J1FIpJ*SJ!Qf^9c|^$kv|2^vr05cTlvJ(
        hJ(!f2J!Nnq2q%Uznfkv>Ka}|%R*a!4SvhOqX8MDOR$rEK&S8eR$DswU>CY^A^O=hK5tAsXJFeA<0avQ<g;>c`$?n18BR<*M)HHe
        Z-0FfK}A{DoW;SHZ!V5w*1iIg>spf6*OahDH5BVxy4_bqC*8+>8OR@|*wF%U>jgS8(cIiotKBKmctA+HC=^HfK;Kgl)D855VlvP^
        %MdkdJy&%M$zpL>#MAa7*l}jr>$fzxG;ZF6cq#gDfJ)tIY_k0K7>aIT@a5$?X4%$KH8f)O(z8v8nAX?k{+6o(lTf6A<TZB<welVM
        d?lOjE~MTKnAUz=9@GjD;kL?6H)9yge`*6v&HFhD-fMB&`mh2zz%xAu`MO4_d{k!%gM6N`_09cMASZ2TS-Gryuu#a$PWan-X(>!h
        Q(9+f?4ybc56i*T6Y-sDw67+x;AKeC(%iR9xA#w4w$GNVP~RF7qO_buDW1iG^8~Sqf}ZyqM(RwTis}lwVr$5kX7fn<lc)H=HM0Hf
        Zwupks20e-QQ(VY2g3APnM6t>_XmYEoiFw<2edivFe9>9Sr-_<La#}522hdK0wWI->HI}vOVG0des4e`vJC7QHtwx#G}5G7zuz|v
        CTmnAdxzkmQ<ex9wMx}+5L;L|%f|p-9XW}TB@D^A61?@q>ANPROtAdPoNSvu7s411AF7-z6gkDCR07WM6n%<t+Hw*;PA9NOx?;lD
        O}KD?2v@WlpS!Ah?{I^^e%axmZsrineWrla>Q<y`-`!ECEh!SJI4Cba-rc8Zy*Xh5?E2~(M=x+`$1tqDtCY(J*rCacr+kKFAZQzj
        bQRDc2^sOU!ScGyFCSy40%**X4M`7`W+}BTg>I6c@Y%C&lKNMTafrFvgA{qzN@<XYXWqS&0<N_wJn7nFq}m!$G*JwF{W?_1(e*en
        naOSW>MUE_Q;<pH(8}N^O{7-oLR-@gGUj<`D|ld$5)GJVED)=yKtz`R?X*xvVk5~cE2Rt9kIyW-_Q!~sDzwAY`8zX83C$A?D*7eE
        PEe}Rg#Wy8)@MCw6-a=*AqfrPgCV#(=e9Dz(I=`|o3HrnU7Jn2$n~sf%FTq>0%4cRgW|32;&q3n<bL)`f@B@@Zc8cjn3W9hvJ`QR
        UVYsb&#S8ns<+`5(Ol-tC=4&m+{iY(jnc<BocWjOc7Oa%6jF$*&7>@1zE9>EpLuKfvLL!9zyv?Wia?o!ZeEq$)ufah)at1%>r_Fp
        5!IACtr)U#*HhzI1hOPpy;JE29@pc1Z&C{bh~aN4h?v!V(T^077K&RAgJU!ndWl>8puPxeKO1s-XnuOPf-GjwY{sBT7+g<fm|ord
        fl`eF@ZgX_=+@DnxOwv%a1oJ!Zc>R#W~mP)BQeI0{EWsK+i4BAz5TI7^zmt>s%I~E1#W_77Ou22RlB>1B{Cb3)Gp)C`Sy=kt)ipj
        {ZK{1q?jk?#jNcx%#J;uQCE0}DNQSkBw(nl{+@c*K164}<3me}Xds(MD9QWb(~C`uQ0YH^l0g6t-7?Ks2|8GQRw~1W2Rml)XuRFb
        1%@LR*%ltd^?C`~t2gf6fxgiR9R^UWs{^$6f{|#Tsj!m)KYUme3<Brgk7mSesUqO=!WgC6G{p8^h@6l10#jjSm7qj`L+8nRrH*tX
        *&M^qEx7>^9VJ|AI&2^RH1v&l+)IPwVsYsRbYtI#l2cr{gwqc+1xry9CC_1ETUVb8(1g`}AcEj)a0mivfb~alF@NSa=EhjAxy`lG
        ;}?=9!c=JL0Mxh<xAh&PuCz<n=r>vwAA(+_%ERj5brJpeoK6%H6CQrTaV8a}WT~7Dez(sTx=H7}^zS4*iQ-iS1!Td>E5dJq?P}gz
        (MH0vtB!fph76=$wx`=vmGn-oLeljs+%VriknHUPqE<m)DQnq&25>6o7sAg|E`5O*mj;cdN=6(7l!O&J18`Y?)lVS8%=UPH?_14)
        >a;=!dzNK(7pi$mn<|6EmR?fzxuK?v05^Yqb%IR4<RatUe)L}F?5-3L(HBwgevGlV;$!K8q8;^TtIU7}mJfm@8%HMV#-FgarpxF@
        (+>qWbzIBsmm`XV$mBKz8chi~asAN9R^dEMuabpZL)-Q=d8d9;I&v5~wUZv!2&u1nLYkj%lIwN?7ijM__wLwh4IC2_k(ShJ>+pbP
        @p7YNg)NcxjCNg96}Fm`zH*eWuL`d<7$vMRKPkcO6Fo~gCvb(RaG&&!7n2T8=&i~m_yY_Tbaneu2w2ak(HwpqHII<ZniNV}B=q#h
        lp>R-8{Ly{!mL?O-a=NrdsT+jjG4xO9z+-wjl~v|Jm}U^s`SF}fC=fsqz9w}vOI%dLn}|dM>C!CO(;w}nJgNi@^u`SSbW-kE*(UT
        _e?aYn0XIE{7YC7-?xK8B`Yn?7oW8MVFHs;Wo0egMJ&BlDC_+ySiRs?b@Js2_b+EVFs6D68O}9)>fs#olUD{mFOSC*Xga=hdhcuP
        wC2#K4Kw1};key{pS`xz605rJ0E!$5>P9Zx$Gq}J*n^~#-*9ecao>vFq<g&_6``%k71ltJRcz9n-WsGYY1Jn-a@Byp?Y%i0`MIO$
        ?#JQ?@+hG$tHAJj4aj=9ifF6cXlqPK>FpJYGA|%#4v8~RTiq>FJMf?FqfE;<s|)iexRdk4*mob%PdXNFxpx)VFLmz~p5hX3Wgb45
        p?x8$Eof3+kkX;*St@XZm#1)`yPTT&(VJ&OOS3z8y{#hOESZITjruheyJs3Dzv<@r0Nz|rdM7+Cf834=_JX%3UhSaeb<aYBLEAu1
        33c#Gij^376eFlh<p=rHsT{!kF6tKUJ#tX7474~r$lGDewAoYP=4f+YD{KcZIqE&c`+Cx-XI;*s;wAeH!JGA~{yOC*wi6}eGj08=
        l~r=TJMA+%dG<dE%h8}cR53c@y$r(V7NXptBvJP@35^oNcIL+XL&7jm&R4RbRBf$Zt=MA8+_thWbXsXyDVtsAlFv$;@bjLM+Z5bA
        w~Ku1aiH57*CEuFwqvBg8;F9E8m%N)CfV!B61%CR1%q}~;cqxz+zctvdBm>Tb$rq7(0TtQb<!{iorDP6ziHWmH2Vm(aU`1fWvlcJ
        xun+*JsGUQ+BX|F1Z8E5aC{ej*CzcAYNl;?X|rIrznTm`a}#!PJs!JkF!#QWGbuj^<!ULP?*T^B;%%sr*~CJ<FcM`+#C(#RmD<=m
        F=$Ilm7u+z&zQBYl#0}*)Lf;MExX~LP0en!gIpZ$?-<81?ld^4?bg!WL+CnCqYq!w>tnuSwBM;8JjSq=BXJ;zhB<YbQ+OMoeFMvh
        %Ya@%GkC3yL#C3+9G-ldz0VRtW#<TQ6+uoqNZSD;&qH(wH?~Mtp2OISvlftXbYUI~M(BBYo~62>8qDKo=sUh5`uiq0m>j1Lgs(i>
        y`Jz*)$0R}sVm+2wQ^TK-_*qK`}M6pzl0S90F)zCf?Wibldz;uMm1V8Uq|v~o0t4NQ>{~ACrCx|4tOQ$z>cdk2Wik8_V<<RHm857
        f*mUm`T7l=9n4^fGjBc%HuGUpt`xTR!0pEwo4aT-yYA(b;*e`t1M^^SsWKWF7<X=4qp3M2K~gdOqcO`|CWyM0n(ZFd>E7MaSDi+q
        NGBmlhtG{lspt{rlq*cO8^opO<OKg53YrgPI~<Cs%WS}#dr&#{$B*J?skLR*6{5P8#k~ztHziIT;OxL>Ew2wVpHUZoK^HzAhCiW_
        `urCOVU(oVTK)ju=_>NF5pG9lgZJgiv+uoeer9y}WG=V`8R{SxXI)?8+^EqDf(FZPT&(oN=-JL|ORv7D5AoEu7!VP$=Gp;SDpj9E
        (1zI7VAXJ>zYWHK)B_BYOfM1%d5U&Vy(f#4iz#zoNEJ@`$Ns2WHR?_ewc?r1;IB>2yURl9Pn2kV*MG~M^)YTo>=<$WN1Xo==l}ov
        ^Z$tIfz7?4=5LXKxy=*1dI2YQEtHw`E`AoKa)66L8k8JJ23c4#s)1OA9315WZX<xCGrP2vR(hS!2#DM;;)8X9&jQ_ehbVBP<M=tq
        I}AUP%;ui>l$NB63g4c%MuYWgM>^$^XVgILrp}Y-RRRz*M-po16P+XXtd^-6qI~SmJfU^`A6TrZFW68Mu(r;O*V<;(kiYlLD*2rM
        DKJv(5~D-jwLD{didhAj>s>0XnhNZak>Fy8xe{6Gj;tD9huAREuPJId-vk&m4G)Z0g%Urc#mMdB>@JolY}ICx`N}vH%fFc=fhBc{
        hr3?v`W}X=2cj{7ff6D(TX|J7&teiU(kERGNBa&l(x1D_aY+2=YsLN|_Z7P&l3p_Th}cr_-4FHe+x}SCUPIXC8`_NCT<^_Om;^B*
        WWCY?;wBs!Kburr8~xB7x&Y@*+@6}jmfI7zXZV<H-q~OwIY5q>VqN%0BjAUU9T(=UY9vun8GbW4(4nQ%@~9_0&+RNRXhOntr~Djb
        N5Fh~{njr&1{6#iW5nbAz!KbmCC>ioc9GSiTUdK)ST$!xBlvSMwT>jA4=d;93u7FF>JuXd&L#hyfXOZ1ei;$Q!uh<Y7z6Ee(Tlj;
        RUIvdKvF35R+>|c7g}=1570J=i}qB=8uFiHX}>PQJAvj8Z)2f&_GN}c>AaX39NzaOT}p(*Nfv=_%YT$=7=H0qM#ymiaojm1$2Yab
        (43BtV>vd_2*Oqm+DvnuhRr=>H-EQtck9cJ|N2~|%1IiN;8)9|@zD?ZsI(BR|L>d_3keAc?H_aE$NppW$>At}oD)-FV4+f>U?H0m
        w4(pbJ+4LnNA9uzSP%QZ=RD@<QU3ip=;|$_%-`H&ALBpk|K=b2kArCno^j8|++%%QkGM%dKtMo1KtT9!@jp=5UE%
    """,
    "log/0000000000000002.log": """
        c-rmTze@sP7{Kx4Jo7yl<q-Tai4cLvWs769owI|R!&wnTl#@6Lj{OPI5_E#NH24>YgF{0!m^9qxCfQ)KJbAaYx=4IKeBl}1d;Wp<
        <z_9nb8~lfqHBS(?O4BD77mA>RsZ_?qkQVV#)9LF{nl=lDp?Hx0000000000008Wb_gZJsOKV#AzJCx*dFPk8d~%#|zwuyokCkB=
        Dv~sFYg_5o%66OQL_|bHL_|bHL_|ciW1je`ukIh`w<Ec?mw)!upL=^bml^+=Jj=a(KJvTfrKX8)xF_G5!S~_5oXcE9^F`T<8!DPK
        J<lIp9LXLpB>({Y9~%Z*J-q
    """,
}
